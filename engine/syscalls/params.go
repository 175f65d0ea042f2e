package syscalls

import "strings"

// calls are the arguments of calls, in order: name:kind, or only the name where it is that of the kind, or
// name>struct for a pointer to a struct. Where an ABI has others, its name stands before the call's.
var calls = map[string]string{
	// Files by name.
	"open": "path flags mode", "openat": "dirfd path flags mode", "openat2": "dirfd path how>open_how size", "creat": "path mode",
	"mkdir": "path mode", "mkdirat": "dirfd path mode", "mknod": "path mode dev:int", "mknodat": "dirfd path mode dev:int",
	"rmdir": "path", "unlink": "path", "unlinkat": "dirfd path flags",
	"rename": "old:path new:path", "renameat": "olddir:dirfd old:path newdir:dirfd new:path", "renameat2": "olddir:dirfd old:path newdir:dirfd new:path flags",
	"link": "old:path new:path", "linkat": "olddir:dirfd old:path newdir:dirfd new:path flags",
	"symlink": "target:path new:path", "symlinkat": "target:path newdir:dirfd new:path",
	"readlink": "path buffer size", "readlinkat": "dirfd path buffer size",
	"chmod": "path mode", "fchmod": "fd mode", "fchmodat": "dirfd path mode", "fchmodat2": "dirfd path mode flags",
	"chown": "path uid:id gid:id", "lchown": "path uid:id gid:id", "fchown": "fd uid:id gid:id", "fchownat": "dirfd path uid:id gid:id flags",
	"chown32": "path uid:id gid:id", "lchown32": "path uid:id gid:id", "fchown32": "fd uid:id gid:id",
	"stat": "path stat>stat", "lstat": "path stat>stat", "newfstatat": "dirfd path stat>stat flags", "statx": "dirfd path flags mask:flags statx>statx",
	"stat64": "path stat>stat64", "lstat64": "path stat>stat64", "fstatat64": "dirfd path stat>stat64 flags",
	"access": "path mode:flags", "faccessat": "dirfd path mode:flags", "faccessat2": "dirfd path mode:flags flags",
	"truncate": "path size", "ftruncate": "fd size", "truncate64": "path length:offset", "ftruncate64": "fd length:offset",
	"utimensat": "dirfd path times>timespec[2] flags", "statfs": "path statfs>statfs",
	"chdir": "path", "fchdir": "fd", "chroot": "path", "pivot_root": "new:path old:path",
	"setxattr": "path name:text value:buffer size flags", "lsetxattr": "path name:text value:buffer size flags", "fsetxattr": "fd name:text value:buffer size flags",
	"getxattr": "path name:text value:buffer size", "lgetxattr": "path name:text value:buffer size",
	"mount": "source:path target:path type:text flags data:opaque", "umount2": "path flags", "umount": "path",
	"move_mount": "fromdir:dirfd from:path todir:dirfd to:path flags", "open_tree": "dirfd path flags",
	"swapon": "path flags", "acct": "path", "inotify_add_watch": "fd path mask:flags",
	"name_to_handle_at": "dirfd path handle>file_handle mountid:length flags", "open_by_handle_at": "dirfd handle>file_handle flags",

	// Programs and modules.
	"execve": "path argv:texts envp:texts", "execveat": "dirfd path argv:texts envp:texts flags",
	"init_module": "image:buffer size params:text", "finit_module": "fd params:text flags", "delete_module": "name:text flags",
	"kexec_file_load": "kernel:fd initrd:fd size cmdline:buffer flags",

	// Sockets.
	"socket": "domain:int type:flags protocol:int", "socketpair": "domain:int type:flags protocol:int pair>int[2]",
	"connect": "fd sockaddr size", "bind": "fd sockaddr size", "listen": "fd backlog:int",
	"accept": "fd sockaddr length", "accept4": "fd sockaddr length flags", "getsockname": "fd sockaddr length", "getpeername": "fd sockaddr length",
	"sendto": "fd buffer size flags sockaddr addrlen:size", "recvfrom": "fd buffer size flags sockaddr length",
	"sendmsg": "fd msg>msghdr flags", "recvmsg": "fd msg>msghdr flags", "sendmmsg": "fd msgs>mmsghdr count:int flags",
	"setsockopt": "fd level:int option:int value:buffer size", "getsockopt": "fd level:int option:int value:buffer length",
	"socketcall": "call:int args:opaque",

	// Descriptors.
	"read": "fd buffer size", "write": "fd buffer size", "close": "fd", "dup": "fd", "dup2": "fd newfd:fd", "dup3": "fd newfd:fd flags",
	"pread64": "fd buffer size offset", "pwrite64": "fd buffer size offset",
	"ioctl": "fd request:flags arg:opaque", "fcntl": "fd command:int arg:opaque", "fcntl64": "fd command:int arg:opaque",
	"fallocate": "fd mode:flags offset length:offset", "memfd_create": "name:text flags", "pidfd_getfd": "pidfd:fd fd flags",

	// Processes.
	"kill": "pid:id signal", "tkill": "tid:id signal", "tgkill": "pid:id tid:id signal", "pidfd_send_signal": "pidfd:fd signal info>siginfo flags",
	"ptrace": "request:flags pid:id addr:opaque data:opaque", "process_vm_readv": "pid:id local>iovec localcount:size remote>iovec remotecount:size flags",
	"process_vm_writev": "pid:id local>iovec localcount:size remote>iovec remotecount:size flags",
	"clone":             "flags stack:opaque parent:length child:length tls:opaque", "i386/clone": "flags stack:opaque parent:length tls:opaque child:length",
	"arm64/clone": "flags stack:opaque parent:length tls:opaque child:length", "arm/clone": "flags stack:opaque parent:length tls:opaque child:length",
	"clone3": "args>clone_args size", "unshare": "flags", "setns": "fd type:flags", "prctl": "option:int arg2:opaque arg3:opaque arg4:opaque arg5:opaque",
	"setuid": "uid:id", "setgid": "gid:id", "setreuid": "ruid:id euid:id", "setregid": "rgid:id egid:id",
	"setresuid": "ruid:id euid:id suid:id", "setresgid": "rgid:id egid:id sgid:id", "setfsuid": "uid:id", "setfsgid": "gid:id", "setgroups": "count:int groups:buffer",
	"setuid32": "uid:id", "setgid32": "gid:id", "setresuid32": "ruid:id euid:id suid:id", "setresgid32": "rgid:id egid:id sgid:id",
	"setpriority": "which:int who:id priority:int", "sched_setaffinity": "pid:id size mask:buffer", "setrlimit": "resource:int limit>rlimit",
	"prlimit64": "pid:id resource:int new>rlimit64 old>rlimit64", "personality": "flags", "getppid": "", "getpid": "", "exit_group": "status:int",

	// The machine.
	"sethostname": "name:buffer size", "setdomainname": "name:buffer size", "reboot": "magic:flags magic2:flags command:flags arg:opaque",
	"settimeofday": "time>timeval zone>timezone", "clock_settime": "clock:int time>timespec", "syslog": "type:int buffer size",
	"bpf": "command:int attr>bpf_attr size", "perf_event_open": "attr>perf_event_attr pid:id cpu:int group:fd flags", "keyctl": "operation:int arg2:opaque arg3:opaque arg4:opaque arg5:opaque",
	"add_key": "type:text description:text payload:buffer size keyring:int", "userfaultfd": "flags", "io_uring_setup": "entries:int params>io_uring_params",
	"seccomp": "operation:int flags arg:opaque", "fanotify_init": "flags eventflags:flags",
}

var params = func() (p [ABIs][][]Param) {
	for a := range ABIs {
		p[a] = make([][]Param, len(tables[a]))
		for nr, name := range tables[a] {
			spec, ok := calls[a.String()+"/"+name]
			if !ok {
				spec, ok = calls[name]
			}
			if ok {
				p[a][nr] = parse(spec, a, longFlags[name])
			}
		}
	}
	return p
}()

// longFlags are the calls whose flags are of C's type long.
var longFlags = map[string]bool{"mount": true, "clone": true, "unshare": true, "ptrace": true, "kexec_file_load": true, "perf_event_open": true}

// parse makes parameters of a line of calls.
func parse(spec string, a ABI, longFlags bool) []Param {
	ps := make([]Param, 0, 6) // not nil, also for a call without arguments
	reg := uint8(0)
	for word := range strings.FieldsSeq(spec) {
		p := Param{Name: word}
		kind := word
		if name, points, ok := strings.Cut(word, ">"); ok {
			p.Name, p.Points, kind = name, points, "struct"
		} else if name, k, ok := strings.Cut(word, ":"); ok {
			p.Name, kind = name, k
		}
		for k, s := range kindNames {
			if s == kind {
				p.Kind = Kind(k)
			}
		}
		if p.Kind == Offset && a == ARM {
			reg += reg % 2 // 64 bits begin at an even register
		}
		p.at = reg
		reg++
		if p.Kind == Offset && !a.Wide() {
			reg++
		}
		switch p.Kind {
		case Int, ID, FD, DirFD, Mode, Signal:
			p.short = true
		case Flags:
			p.short = !longFlags
		}
		ps = append(ps, p)
	}
	return ps
}
