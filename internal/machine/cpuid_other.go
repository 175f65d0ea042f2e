//go:build !amd64

package machine

func brand() string { return "" }
