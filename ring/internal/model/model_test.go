package model

import (
	"errors"
	"strings"
	"testing"
)

func zero() uint64 { return 0 }

// flags is the store-then-look pattern of two threads; look decides whether
// each looks at the other's flag after it has raised its own.
func flags(lookFirst bool) func() *Program {
	return func() *Program {
		var a, b Word
		a.Register("a")
		b.Register("b")
		inside := 0
		thread := func(mine, other *Word) func(*Thread) {
			return func(t *Thread) {
				t.Op(0, 0)
				var seen uint64
				if lookFirst {
					seen = other.Load()
					mine.Store(1)
				} else {
					mine.Store(1)
					seen = other.Load()
				}
				if seen == 0 {
					inside++
				}
			}
		}
		return &Program{
			Threads: []func(*Thread){thread(&a, &b), thread(&b, &a)},
			Plain:   zero,
			Extra:   func() uint64 { return uint64(inside) },
			End: func() error {
				if inside == 2 {
					return errors.New("neither saw the other")
				}
				return nil
			},
		}
	}
}

func TestFindsTheOneBadOrder(t *testing.T) {
	if res, err := Check(flags(false), 1000); err != nil {
		t.Errorf("store, then look: %v", err)
	} else if res.States < 9 {
		t.Errorf("store, then look: only %d states", res.States)
	}
	_, err := Check(flags(true), 1000)
	var e *Error
	if !errors.As(err, &e) || len(e.Trace) != 4 {
		t.Errorf("look, then store: %v, want a schedule of 4 steps", err)
	}
}

func TestLocksAndDeadlock(t *testing.T) {
	program := func(swapped bool) func() *Program {
		return func() *Program {
			var x, y Mutex
			x.Register("x")
			y.Register("y")
			n := 0
			threads := make([]*Thread, 2)
			thread := func(p, q *Mutex) func(*Thread) {
				return func(t *Thread) {
					threads[t.ID] = t
					t.Op(0, 0)
					p.Lock()
					q.Lock()
					n++
					q.Unlock()
					p.Unlock()
				}
			}
			second := thread(&x, &y)
			if swapped {
				second = thread(&y, &x)
			}
			return &Program{
				Threads: []func(*Thread){thread(&x, &y), second},
				Plain:   func() uint64 { return uint64(n) },
				Extra:   zero,
				End: func() error {
					for _, t := range threads {
						if !t.Done() {
							return errors.New("waits for " + t.Blocks)
						}
					}
					if n != 2 {
						return errors.New("lost an increment")
					}
					return nil
				},
			}
		}
	}
	if _, err := Check(program(false), 1000); err != nil {
		t.Error(err)
	}
	if _, err := Check(program(true), 1000); err == nil || !strings.Contains(err.Error(), "waits for") {
		t.Errorf("locks taken in both orders: %v, want a deadlock", err)
	}
}

func TestGivesUp(t *testing.T) {
	endless := func() *Program {
		var w Word
		w.Register("w")
		return &Program{
			Threads: []func(*Thread){func(t *Thread) {
				for i := uint64(0); ; i++ {
					w.Store(i)
				}
			}},
			Plain: zero, Extra: zero,
			End: func() error { return nil },
		}
	}
	if _, err := Check(endless, 1e6); err == nil || !strings.Contains(err.Error(), "no end") {
		t.Errorf("a program without end: %v", err)
	}
	if _, err := Check(flags(false), 3); err == nil || !strings.Contains(err.Error(), "more than 3 states") {
		t.Errorf("too many states: %v", err)
	}
}

func TestFutex(t *testing.T) {
	program := func(wakeFirst bool) func() *Program {
		return func() *Program {
			var w Word
			w.Register("w")
			var sleeper *Thread
			return &Program{
				Threads: []func(*Thread){
					func(t *Thread) {
						sleeper = t
						for w.Load() == 0 {
							FutexWait(&w, 0)
						}
					},
					func(t *Thread) {
						if wakeFirst {
							FutexWake(&w)
						}
						w.Store(1)
						if !wakeFirst {
							FutexWake(&w)
						}
					},
				},
				Plain: zero, Extra: zero,
				End: func() error {
					if !sleeper.Done() {
						return errors.New("sleeps for ever")
					}
					return nil
				},
			}
		}
	}
	if _, err := Check(program(false), 1000); err != nil {
		t.Error(err)
	}
	if _, err := Check(program(true), 1000); err == nil {
		t.Error("a wake-up before the word is set went unnoticed")
	}
}
