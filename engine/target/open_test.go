package target

import "fmt"

func prepareMore(word, rest string) error { return fmt.Errorf("no such preparation") }
