package confine_test

import (
	"context"
	"fmt"
	"log"

	"github.com/unknot/unknot/confine"
	"github.com/unknot/unknot/engine"
)

// An engine whose receive threads confine themselves before they receive the first call. The engine and package
// confine do not know each other; this is how a command joins them.
func ExamplePlan_Confine() {
	plan, err := confine.Prepare(confine.Config{})
	if err != nil {
		log.Fatal(err)
	}
	e, err := engine.New(engine.Config{
		Handler:      engine.Continue,
		Cookies:      plan.Cookies(),
		PrivateFiles: plan.Level() == confine.Private,
		ThreadHook: func(t engine.Thread) error {
			status, err := plan.Confine(confine.Thread(t))
			if err == nil {
				log.Print(status)
			}
			return err // with an error the engine does not run
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	// e.Add(listener), then:
	log.Fatal(e.Run(context.Background()))
}

func ExampleParseLevel() {
	l, err := confine.ParseLevel("shared")
	fmt.Println(l, err)
	// Output: shared <nil>
}
