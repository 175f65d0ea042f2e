package engine

import (
	"slices"

	"github.com/unknot/unknot/engine/internal/offline"
	"github.com/unknot/unknot/engine/internal/placement"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
)

// An engine of package enginetest: one receiver without a thread, and a worker for each call.
func init() {
	offline.New = func(config any) (any, error) {
		cfg := config.(Config)
		cfg.Inline, cfg.Receivers, cfg.CPU = true, 0, AnyCPU
		if err := cfg.fill(osthread.Allowed()); err != nil {
			return nil, err
		}
		e := newEngine(cfg, osthread.Allowed())
		e.life.state = over // for Run and Add
		rx := &receiver{e: e, ended: make(chan struct{}), tallies: make([]tally, 1), seat: seat{cpu: placement.Anywhere, fd: noFD}}
		close(rx.ended)
		rx.listeners.Store(&[]*Source{})
		rx.crew.init([]*worker{rx.newWorker(0)})
		e.receivers.list.Store(&[]*receiver{rx})
		return e, nil
	}
	offline.Add = func(engine any, l *notify.Listener, options any) (any, error) {
		e := engine.(*Engine)
		e.registry.mu.Lock()
		defer e.registry.mu.Unlock()
		if e.registry.high.Load() == MaxListeners {
			return nil, errorf("%d listeners: the most that an engine takes", MaxListeners)
		}
		s, err := e.newSource(l, options.(SourceOptions), e.registry.next())
		if err != nil {
			return nil, errorf("add listener: %w", err)
		}
		s.own(e.receivers.all()[0])
		e.registry.table[s.index].Store(s)
		e.registry.high.Add(1)
		e.registry.added.Add(1)
		return s, nil
	}
	offline.Serve = func(source any, n notify.Notif) {
		s := source.(*Source)
		rx := s.owner.Load()
		w := rx.newWorker(0)
		rx.setWorkers(func(all []*worker) []*worker { return append(all, w) })
		defer rx.setWorkers(func(all []*worker) []*worker {
			return slices.DeleteFunc(all, func(o *worker) bool { return o == w })
		})
		s.received.Add(1)
		rx.tallies[0].received.Add(1)
		r := &w.req
		r.notif, r.src, r.receivedAt, r.stats = n, s, now(), nil
		if rx.e.syscalls != nil {
			r.stats = rx.e.syscalls.received(&n.Data)
		}
		w.serve(false, r.receivedAt)
	}
	offline.Expire = func(engine any) int { return engine.(*Engine).expireAll(now(), true) }
}

func (rx *receiver) setWorkers(change func([]*worker) []*worker) {
	rx.crew.mu.Lock()
	defer rx.crew.mu.Unlock()
	all := change(slices.Clone(rx.crew.all()))
	rx.crew.workers.Store(&all)
}
