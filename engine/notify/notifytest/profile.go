package notifytest

// A Profile is in what one kernel differs from another. The zero Profile is Linux 5.0.
type Profile struct {
	Name string
	// Continue: SEND takes SECCOMP_USER_NOTIF_FLAG_CONTINUE (5.5). Else it answers EINVAL.
	Continue bool
	// AddFD: there is NOTIF_ADDFD (5.9). Else EINVAL, as for any number that is none.
	AddFD bool
	// Hangup: poll says EPOLLHUP when no target is left (5.9).
	Hangup bool
	// AddFDSend: ADDFD takes SECCOMP_ADDFD_FLAG_SEND (5.14). Else EINVAL.
	AddFDSend bool
	// WaitKillable: a filter may be installed with WAIT_KILLABLE_RECV (5.19).
	WaitKillable bool
	// OldestFirst: RECV hands out the oldest call (5.19). Before, the newest.
	OldestFirst bool
	// SyncWakeUp: there is NOTIF_SET_FLAGS (6.6). Else EINVAL.
	SyncWakeUp bool
	// RecvRestarts: a signal whose action restarts calls restarts RECV (6.6, where it sleeps on the wait queue). Before,
	// on a semaphore, it was EINTR in any case.
	RecvRestarts bool
	// RecvEnds: RECV answers ENOENT, at once and for ever, when no target is left (6.11). Before, it slept for ever.
	RecvEnds bool
	// ExitReleases: a thread that ended uses the filter no more (6.11). Before, it did until its parent had waited for it.
	ExitReleases bool
	// KillableReplied: with WAIT_KILLABLE_RECV a signal that comes between SEND and the target's own wake-up does not take
	// the answer away (6.18). Before, SEND had said that all was well, and the call came again.
	KillableReplied bool
}

// Kernels, oldest first; each name says from which release on it holds.
var (
	Linux5_0  = Profile{Name: "5.0"}
	Linux5_10 = Profile{Name: "5.10", Continue: true, AddFD: true, Hangup: true}
	Linux6_1  = with(Linux5_10, "6.1", func(p *Profile) { p.AddFDSend, p.WaitKillable, p.OldestFirst = true, true, true })
	Linux6_6  = with(Linux6_1, "6.6", func(p *Profile) { p.SyncWakeUp, p.RecvRestarts = true, true })
	Linux6_12 = with(Linux6_6, "6.12", func(p *Profile) { p.RecvEnds, p.ExitReleases = true, true })
	Linux6_18 = with(Linux6_12, "6.18", func(p *Profile) { p.KillableReplied = true })
)

// Profiles are all of them, oldest first.
func Profiles() []Profile {
	return []Profile{Linux5_0, Linux5_10, Linux6_1, Linux6_6, Linux6_12, Linux6_18}
}

func with(p Profile, name string, change func(*Profile)) Profile {
	p.Name = name
	change(&p)
	return p
}
