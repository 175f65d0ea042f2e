package peers

// chanForm is the built-in channel, as one uses it.
type chanForm[T element] struct {
	load
	c chan T
}

func newChan[T element](l load) *chanForm[T] {
	return &chanForm[T]{l, make(chan T, l.capacity)}
}

func (f *chanForm[T]) send(_ int, s span) {
	for i := s.first; i <= s.last; i++ {
		f.c <- number[T](i)
	}
}

func (f *chanForm[T]) sendDrop(_ int, s span) (dropped tally) {
	for i := s.first; i <= s.last; i++ {
		e := number[T](i)
		for sent := false; !sent; {
			select {
			case f.c <- e:
				sent = true
			default:
				select {
				case old := <-f.c:
					dropped.add(old[0])
				default:
				}
			}
		}
	}
	return dropped
}

func (f *chanForm[T]) receive() (got tally) {
	for e := range f.c {
		got.eat(e[0], f.rounds)
	}
	return got
}

func (f *chanForm[T]) poll() (got tally) {
	for {
		select {
		case e, ok := <-f.c:
			if !ok {
				return got
			}
			got.eat(e[0], f.rounds)
		default:
			yield()
		}
	}
}

func (f *chanForm[T]) done() { close(f.c) }
