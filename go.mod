module github.com/unknot/unknot

go 1.26
