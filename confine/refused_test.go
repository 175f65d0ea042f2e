package confine

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// A refusal is what a child confines a thread under.
type refusal struct {
	Answers map[int]syscall.Errno
	Config  Config
}

// childRefused says the status of a thread that it confines under a profile, or
// why it is none.
func childRefused(c *testchild.Conn, args []string) error {
	var r refusal
	if err := json.Unmarshal([]byte(args[0]), &r); err != nil {
		return err
	}
	// More than one read of a directory lists, and none of them the thread's.
	var pipes [500]int
	for i := 0; i < len(pipes); i += 2 {
		if err := unix.Pipe2(pipes[i:i+2], unix.O_CLOEXEC); err != nil {
			return err
		}
	}
	listener, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	if err := testchild.Refuse(r.Answers); err != nil {
		return err
	}
	plan, err := Prepare(r.Config)
	if err != nil {
		return c.Say("Prepare: %v", err)
	}
	said, end := make(chan string), make(chan struct{})
	tid := 0
	osthread.Start(func() {
		st, err := plan.Confine(Thread{Listeners: []int{listener}, Epoll: -1, Wake: -1})
		if err != nil {
			said <- fmt.Sprintf("Confine: %v", err)
			return
		}
		tid = st.TID
		said <- fmt.Sprintf("planned %v, %v; missing %q", plan.Level(), st, st.Missing)
		<-end
	})
	line := <-said
	if tid != 0 {
		// What the process has open is not the thread's to close.
		fds, err := os.ReadDir(fmt.Sprintf("/proc/self/task/%d/fd", tid))
		if err != nil {
			return err
		}
		line += fmt.Sprintf("; many descriptors: %t", len(fds) > len(pipes))
		close(end)
		if err := gone(tid); err != nil {
			return err
		}
	}
	for i := 0; i < len(pipes); i += 2 {
		var b [1]byte
		if _, err := unix.Write(pipes[i+1], b[:]); err != nil {
			return fmt.Errorf("the process's pipe %d: %w", pipes[i+1], err)
		}
	}
	return c.Say("%s", line)
}

// TestRefusedCalls: under a profile that refuses a call the thread is confined
// all the same, in the way that the plan said, or the error names the call.
func TestRefusedCalls(t *testing.T) {
	const (
		profile  = "container's seccomp profile"
		private  = "planned private, thread"
		own      = "many descriptors: false"
		shared   = "planned shared, thread"
		landlock = "landlock_create_ruleset(2): "
		eperm    = "operation not permitted"
		enosys   = "function not implemented"
	)
	best := Config{Best: true}
	for _, c := range []struct {
		call int
		err  syscall.Errno
		cfg  Config
		says []string
	}{
		{unix.SYS_UNSHARE, unix.EPERM, Config{}, []string{"Confine: ", "unshare(2): " + eperm, profile}},
		{unix.SYS_UNSHARE, unix.ENOSYS, Config{Level: Shared}, []string{"Confine: ", "unshare(2): " + enosys, profile}},
		{unix.SYS_UNSHARE, unix.EPERM, best, []string{shared, `missing ["a file table of its own (unshare(2): ` + eperm + `)"]`, "many descriptors: true"}},
		{unix.SYS_UNSHARE, unix.EPERM, Config{Level: Shared, Best: true}, []string{shared, `missing ["a working directory and umask of its own (unshare(2): ` + eperm + `)"]`}},
		{unix.SYS_LANDLOCK_CREATE_RULESET, unix.EPERM, Config{}, []string{"Prepare: ", landlock + eperm, profile}},
		{unix.SYS_LANDLOCK_CREATE_RULESET, unix.EPERM, best, []string{private, own, "landlock none (" + landlock + eperm, `missing ["landlock (` + landlock + eperm + `)"]`}},
		{unix.SYS_LANDLOCK_CREATE_RULESET, unix.ENOSYS, Config{}, []string{private, own, `missing ["landlock (` + landlock + enosys + `)"]`}},
		{unix.SYS_LANDLOCK_CREATE_RULESET, unix.EOPNOTSUPP, Config{}, []string{private, own, `missing ["landlock (` + landlock + "operation not supported" + `)"]`}},
		{unix.SYS_LANDLOCK_CREATE_RULESET, unix.ENOSYS, Config{RequireLandlock: true}, []string{"Prepare: ", "landlock is required", enosys}},
		{unix.SYS_LANDLOCK_CREATE_RULESET, unix.EPERM, Config{RequireLandlock: true, Best: true}, []string{"Prepare: ", landlock + eperm}},
		{unix.SYS_LANDLOCK_RESTRICT_SELF, unix.EPERM, Config{}, []string{"Confine: ", "landlock_restrict_self(2): " + eperm, profile}},
		{unix.SYS_LANDLOCK_RESTRICT_SELF, unix.EPERM, best, []string{private, own, `missing ["landlock (landlock_restrict_self(2): ` + eperm + `)"]`}},
		{unix.SYS_LANDLOCK_RESTRICT_SELF, unix.EPERM, Config{RequireLandlock: true, Best: true}, []string{"Prepare: ", "landlock_restrict_self(2): " + eperm}},
		{unix.SYS_CLOSE_RANGE, unix.EPERM, Config{}, []string{private, own, "missing []"}},
		{unix.SYS_CLOSE_RANGE, unix.ENOSYS, Config{}, []string{private, own, "missing []"}},
		{unix.SYS_PRCTL, unix.EPERM, Config{}, []string{"Confine: ", "prctl(PR_SET_NO_NEW_PRIVS): " + eperm, profile}},
		{unix.SYS_PRCTL, unix.EPERM, best, []string{private, own, `missing ["no_new_privs (prctl(PR_SET_NO_NEW_PRIVS): ` + eperm + `)"]`}},
		{unix.SYS_SECCOMP, unix.EPERM, Config{}, []string{"Prepare: ", "seccomp(2): " + eperm, profile}},
		{unix.SYS_SECCOMP, unix.EPERM, best, []string{"Prepare: ", "seccomp(2): " + eperm, profile}},
		{unix.SYS_SECCOMP, unix.ENOSYS, best, []string{"Prepare: ", "seccomp(2): " + enosys, profile}},
		{unix.SYS_ACCT, unix.EPERM, best, []string{private, own, "missing []"}},
	} {
		t.Run(fmt.Sprintf("%d/%v/%v/%t%t", c.call, c.err, c.cfg.Level, c.cfg.Best, c.cfg.RequireLandlock), func(t *testing.T) {
			t.Parallel()
			if a, err := probeLandlock(); c.call != unix.SYS_LANDLOCK_CREATE_RULESET && (err != nil || a.version == 0) {
				t.Skip("without landlock here, that is missing as well")
			}
			order, err := json.Marshal(refusal{map[int]syscall.Errno{c.call: c.err}, c.cfg})
			if err != nil {
				t.Fatal(err)
			}
			got := testchild.Start(t, "refused", string(order)).MustHear()
			for _, s := range c.says {
				if !strings.Contains(got, s) {
					t.Errorf("%q lacks %q", got, s)
				}
			}
			if strings.Contains(got, "needs Linux") {
				t.Errorf("%q blames the kernel's age", got)
			}
		})
	}
}
