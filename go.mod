module github.com/unknot/unknot

go 1.25.0

require (
	github.com/seccomp/libseccomp-golang v0.11.1
	golang.org/x/sys v0.35.0
)
