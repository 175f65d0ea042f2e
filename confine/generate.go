package confine

//go:generate go run ./internal/page -o ../docs/confine.md
