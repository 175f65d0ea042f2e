package trace

import "github.com/cilium/ebpf"

// What programs of other packages need to be loaded and attached as those here.

// Load loads programs and maps; kernel is the first that can. Its errors are those of [Probe].
func Load(spec *ebpf.CollectionSpec, kernel string) (*ebpf.Collection, error) {
	coll, err := load(spec)
	if err != nil {
		return nil, explain("load programs", kernel, err)
	}
	return coll, nil
}

// Explain turns an error of attaching to a tracepoint into an *[UnavailableError].
func Explain(tracepoint, kernel string, err error) error {
	return explain("attach to "+tracepoint, kernel, err)
}

// A Namespace is how a program tells a process by its id: by the PID namespace
// that the id is of, if that is not the machine's first.
type Namespace struct {
	Inside   bool   // it is not the first
	Dev, Ino uint64 // as bpf_get_ns_current_pid_tgid wants them
}

// OwnNamespace returns that of our process ids, and an error if pid is no process.
func OwnNamespace(pid int) (Namespace, error) {
	if err := checkProcess(pid); err != nil {
		return Namespace{}, err
	}
	ns, err := ownPIDNS()
	return Namespace{!ns.initial, ns.dev, ns.ino}, err
}
