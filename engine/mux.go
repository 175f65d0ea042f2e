package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/syscalls"
)

// Continue is a handler that has the kernel run each call. It decides nothing.
var Continue Handler = HandlerFunc(func(r Request) { _ = r.Continue() })

// Deny returns a handler that fails each call with errno.
func Deny(errno syscall.Errno) Handler {
	return HandlerFunc(func(r Request) { _ = r.Fail(errno) })
}

// A Middleware makes a handler of another one: it may look, answer itself, or call the next.
type Middleware func(next Handler) Handler

// A Route is how some calls are handled. Only Handler is required.
type Route struct {
	Handler Handler
	// Deadline is how long the handler may take before the engine answers for it, as with
	// [Config.HandlerDeadline], which is what 0 means. [NoDeadline] is none, whatever that is.
	Deadline time.Duration
	// Default answers for a handler that is late, panics or does not answer; 0: [Config.DefaultErrno].
	// [DropContinue] has the kernel run the call.
	Default syscall.Errno
	// Inline has the receive thread call the handler, also where other calls are queued, as long as the Mux is the handler of
	// the engine or the listener, or of one that is, and not within other functions. It must not block: see [Config.Inline].
	Inline bool
}

// NoDeadline, as Route.Deadline, has the engine wait for the handler.
const NoDeadline time.Duration = -1

// A Mux is a handler that hands each call to another one, by what call it is and where it came from. The first of these
// that there is:
//
//   - the handler for the listener ([Mux.When]), in the order in which they were added;
//   - the route of the call, by name ([Mux.Route]) or number ([Mux.RouteNumber]);
//   - the handler for all others ([NewMux]).
//
// Routes may be added and replaced at any time, from any goroutine: a call sees all of a change or nothing.
// To find the route allocates nothing and takes no lock.
//
// A Mux can be the handler of an engine or of a listener, and part of another Mux.
type Mux struct {
	mu    sync.Mutex // of those who change it
	def   muxRoutes  // as it was told
	table atomic.Pointer[muxTable]
}

// muxRoutes are a Mux as it was told.
type muxRoutes struct {
	bare   Handler // for all others
	other  Handler // with what is around it
	whens  []when
	routes map[callKey]*boundRoute
	layers []Middleware
}

type callKey struct {
	abi syscalls.ABI
	nr  int32 // without what marks x32
}

type when struct {
	match  func(*Source) bool
	bare   Handler
	h      Handler // with what is around it
	nested Inliner // bare, if it is one
}

// A muxTable is what calls are looked up in. It is never changed.
type muxTable struct {
	whens  []when
	routes [syscalls.ABIs][]*boundRoute // by number
	other  Handler

	inline bool // a route may be
	nested Inliner
}

// An Inliner is a handler that wants some calls of a queueing engine on the receive thread, as a [Mux] with a
// [Route] that is Inline does. It is asked if it is the handler of the engine or of the listener, or a part of such a Mux.
type Inliner interface {
	Handler
	// Inlines is asked for each call, on the receive thread, and must neither block nor allocate, nor keep the
	// data. Where it says yes Handle comes next, on the same thread, and must not block: see [Config.Inline].
	Inlines(*Source, *notify.Data) bool
}

// A boundRoute is a Route with its layers around it.
type boundRoute struct {
	Route
	h      Handler
	limits *Limits // nil: the engine's
}

// Limits are how long a handler may take and what answers for it otherwise, as a [Route] has them.
type Limits struct {
	deadline time.Duration // 0: the engine's; negative: none
	errno    syscall.Errno // 0: the engine's
}

// NewLimits returns limits; deadline and def are as [Route.Deadline] and [Route.Default].
func NewLimits(deadline time.Duration, def syscall.Errno) (*Limits, error) {
	r := Route{Handler: Continue, Deadline: deadline, Default: def}
	if err := r.check(); err != nil {
		return nil, err
	}
	return &Limits{deadline, def}, nil
}

// maxCallNumber bounds the tables by number.
const maxCallNumber = 1 << 12

// ErrNoCall says that no ABI has a call of that name or number.
var ErrNoCall = errors.New("no such system call")

// NewMux returns a Mux that has other handle each call without a route: [Continue], [Deny], or your own. Nil leaves them
// without an answer, so that the engine gives its default one, and counts it (Unanswered).
func NewMux(other Handler) *Mux {
	m := &Mux{def: muxRoutes{bare: other, other: other, routes: map[callKey]*boundRoute{}}}
	m.compile()
	return m
}

// Route routes the named calls, of every ABI that has one of that name. Older ABIs have some under other
// names too, as i386 has chown32: what shall be handled alike must be named. On error no route is changed.
func (m *Mux) Route(r Route, names ...string) error {
	if err := r.check(); err != nil {
		return err
	}
	keys := make([]callKey, 0, len(names))
	for _, name := range names {
		n := len(keys)
		for abi := range syscalls.All {
			if nr, ok := abi.Number(name); ok {
				_, nr, _ = syscalls.ABIOf(abi.Arch(), nr)
				keys = append(keys, callKey{abi, nr})
			}
		}
		if len(keys) == n {
			return fmt.Errorf("engine: route %q: %w: syscalls(2) lists their names", name, ErrNoCall)
		}
	}
	m.change(func(d *muxRoutes) {
		b := d.bind(r)
		for _, k := range keys {
			d.routes[k] = b
		}
	})
	return nil
}

// RouteNumber routes one call of one ABI, arch being AUDIT_ARCH_*, as a notification has them.
func (m *Mux) RouteNumber(r Route, arch uint32, nr int32) error {
	if err := r.check(); err != nil {
		return err
	}
	abi, n, ok := syscalls.ABIOf(arch, nr)
	if !ok || n < 0 || n >= maxCallNumber {
		return fmt.Errorf("engine: route call %d of architecture %#x: %w", nr, arch, ErrNoCall)
	}
	m.change(func(d *muxRoutes) { d.routes[callKey{abi, n}] = d.bind(r) })
	return nil
}

// When has h handle all calls of listeners for which match holds. It is asked for each call, on the thread that
// handles it, and must neither block nor allocate.
func (m *Mux) When(match func(*Source) bool, h Handler) {
	m.change(func(d *muxRoutes) {
		nested, _ := h.(Inliner)
		d.whens = append(d.whens, when{match, h, d.around(h), nested})
	})
}

// Use puts middleware around every handler of the Mux, those that are added later too. The first one is outermost. Each is called
// once for a handler and not for each call, and again for all of them when Use adds more. The deadline and the
// default answer of a route hold for what is around its handler too.
func (m *Mux) Use(layers ...Middleware) {
	m.change(func(d *muxRoutes) {
		d.layers = append(d.layers, layers...)
		d.other = d.around(d.bare)
		d.whens = slices.Clone(d.whens) // tables have them
		for i := range d.whens {
			d.whens[i].h = d.around(d.whens[i].bare)
		}
		again := map[*boundRoute]*boundRoute{}
		for k, b := range d.routes {
			if again[b] == nil {
				again[b] = d.bind(b.Route)
			}
			d.routes[k] = again[b]
		}
	})
}

// around puts the layers around h.
func (d *muxRoutes) around(h Handler) Handler {
	if h == nil {
		return nil
	}
	for _, l := range slices.Backward(d.layers) {
		h = l(h)
	}
	return h
}

// bind makes a route what calls find.
func (d *muxRoutes) bind(r Route) *boundRoute {
	b := &boundRoute{Route: r, h: d.around(r.Handler)}
	if r.Deadline != 0 || r.Default != 0 {
		b.limits = &Limits{r.Deadline, r.Default}
	}
	return b
}

func (r *Route) check() error {
	if r.Handler == nil {
		return errors.New("engine: route without a handler")
	}
	if r.Deadline < NoDeadline {
		return fmt.Errorf("engine: route with a deadline of %v: must be positive, 0 for the engine's or NoDeadline", r.Deadline)
	}
	if r.Default != 0 && r.Default != DropContinue {
		return checkErrno(r.Default, "default (of a route)")
	}
	return nil
}

// change changes the Mux, for all calls at once.
func (m *Mux) change(f func(*muxRoutes)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.def)
	m.compile()
}

// compile makes the table of what was told. The caller holds m.mu.
func (m *Mux) compile() {
	t := &muxTable{other: m.def.other, whens: slices.Clone(m.def.whens)}
	t.nested, _ = m.def.bare.(Inliner)
	t.inline = t.nested != nil
	for _, w := range t.whens {
		t.inline = t.inline || w.nested != nil
	}
	for k, b := range m.def.routes {
		t.inline = t.inline || b.Inline
		of := &t.routes[k.abi]
		if n := int(k.nr) + 1; n > len(*of) {
			*of = append(*of, make([]*boundRoute, n-len(*of))...)
		}
		(*of)[k.nr] = b
	}
	m.table.Store(t)
}

// Handle hands r to its handler.
func (m *Mux) Handle(r Request) {
	t := m.table.Load()
	if len(t.whens) > 0 {
		src := r.Source()
		for i := range t.whens {
			if src != nil && t.whens[i].match(src) {
				t.whens[i].h.Handle(r)
				return
			}
		}
	}
	d := r.Data()
	if b := t.route(&d); b != nil {
		if b.limits != nil {
			r.Limit(b.limits)
		}
		b.h.Handle(r)
		return
	}
	if t.other != nil {
		t.other.Handle(r)
	}
}

// Inlines reports whether a call is for the receive thread, which asks.
func (m *Mux) Inlines(src *Source, d *notify.Data) bool {
	t := m.table.Load()
	if !t.inline {
		return false
	}
	for i := range t.whens {
		if w := &t.whens[i]; w.match(src) {
			return w.nested != nil && w.nested.Inlines(src, d)
		}
	}
	if b := t.route(d); b != nil {
		return b.Inline
	}
	return t.nested != nil && t.nested.Inlines(src, d)
}

func (t *muxTable) route(d *notify.Data) *boundRoute {
	abi, nr, ok := syscalls.ABIOf(d.Arch, d.NR)
	if !ok || nr < 0 || int(nr) >= len(t.routes[abi]) {
		return nil
	}
	return t.routes[abi][nr]
}

// Limit has l hold for the request from now on, instead of the engine's limits or those of its route; nil has
// the engine's hold again. The deadline counts from dispatch. It allocates nothing: make l once.
func (r Request) Limit(l *Limits) {
	if !r.hold() {
		return
	}
	defer r.release()
	r.s.limits.Store(l)
	if l != nil && l.deadline > 0 {
		r.s.e.deadlines.tighten(l.deadline)
	}
}

// deadlines are how soon a handler's deadline can be, for who looks after them.
type deadlines struct {
	tightest atomic.Int64  // ns; 0: there is none
	asks     chan struct{} // capacity 1: it changed
}

// tighten says that there are handlers with that deadline.
func (d *deadlines) tighten(to time.Duration) {
	for {
		is := d.tightest.Load()
		if is != 0 && is <= int64(to) {
			return
		}
		if d.tightest.CompareAndSwap(is, int64(to)) {
			select {
			case d.asks <- struct{}{}:
			default: // it will look anyway
			}
			return
		}
	}
}

// deadline is what holds for the slot's request; 0 if nothing does.
func (s *slot) deadline() time.Duration {
	if b := s.limits.Load(); b != nil && b.deadline != 0 {
		return max(0, b.deadline)
	}
	return s.e.cfg.HandlerDeadline
}

// overdue reports whether the deadline of the slot's request, dispatched at from, is over at the given time; or, of any
// request, whether it was there.
func (s *slot) overdue(from, at int64, any bool) bool {
	d := s.deadline()
	return from <= at && (any || d != 0 && at-from >= int64(d))
}

// defaultResp is the default answer for the slot's request. Whoever asks has won the right to answer.
func (s *slot) defaultResp() notify.Resp {
	errno := s.e.cfg.DefaultErrno
	if b := s.limits.Load(); b != nil && b.errno != 0 {
		errno = b.errno
	}
	if errno == DropContinue {
		return notify.Resp{ID: s.notif.ID, Flags: notify.RespContinue}
	}
	return errnoResp(s.notif.ID, errno)
}
