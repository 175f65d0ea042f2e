package rules

import (
	"strconv"
	"strings"
	"syscall"

	"github.com/unknot/unknot/engine/syscalls"
	"golang.org/x/sys/unix"
)

// A named is a value of an argument that has a name: the bits of the mask are as the value's.
type named struct {
	name        string
	value, mask uint64
}

// bit is a flag, choice one of several values of the whole argument.
func bit(name string, v uint64) named    { return named{name, v, v} }
func choice(name string, v uint64) named { return named{name, v, ^uint64(0)} }

// Longer ones stand before those whose bits they have too. Numbers are the machine's own; 32-bit programs on it have the same.
var (
	openNames = []named{
		{"O_RDONLY", unix.O_RDONLY, unix.O_ACCMODE}, {"O_WRONLY", unix.O_WRONLY, unix.O_ACCMODE}, {"O_RDWR", unix.O_RDWR, unix.O_ACCMODE},
		bit("O_TMPFILE", unix.O_TMPFILE), bit("O_SYNC", unix.O_SYNC), bit("O_CREAT", unix.O_CREAT), bit("O_EXCL", unix.O_EXCL), bit("O_NOCTTY", unix.O_NOCTTY),
		bit("O_TRUNC", unix.O_TRUNC), bit("O_APPEND", unix.O_APPEND), bit("O_NONBLOCK", unix.O_NONBLOCK), bit("O_DSYNC", unix.O_DSYNC), bit("O_ASYNC", unix.O_ASYNC),
		bit("O_DIRECT", unix.O_DIRECT), bit("O_LARGEFILE", 0o100000), bit("O_DIRECTORY", unix.O_DIRECTORY), bit("O_NOFOLLOW", unix.O_NOFOLLOW),
		bit("O_NOATIME", unix.O_NOATIME), bit("O_CLOEXEC", unix.O_CLOEXEC), bit("O_PATH", unix.O_PATH),
	}
	typeNames = []named{
		{"S_IFREG", unix.S_IFREG, unix.S_IFMT}, {"S_IFCHR", unix.S_IFCHR, unix.S_IFMT}, {"S_IFBLK", unix.S_IFBLK, unix.S_IFMT}, {"S_IFIFO", unix.S_IFIFO, unix.S_IFMT},
		{"S_IFSOCK", unix.S_IFSOCK, unix.S_IFMT}, {"S_IFDIR", unix.S_IFDIR, unix.S_IFMT}, {"S_IFLNK", unix.S_IFLNK, unix.S_IFMT},
		bit("S_ISUID", unix.S_ISUID), bit("S_ISGID", unix.S_ISGID), bit("S_ISVTX", unix.S_ISVTX),
	}
	cloneNames = []named{
		bit("CLONE_NEWNS", unix.CLONE_NEWNS), bit("CLONE_NEWCGROUP", unix.CLONE_NEWCGROUP), bit("CLONE_NEWUTS", unix.CLONE_NEWUTS), bit("CLONE_NEWIPC", unix.CLONE_NEWIPC),
		bit("CLONE_NEWUSER", unix.CLONE_NEWUSER), bit("CLONE_NEWPID", unix.CLONE_NEWPID), bit("CLONE_NEWNET", unix.CLONE_NEWNET), bit("CLONE_NEWTIME", unix.CLONE_NEWTIME),
		bit("CLONE_VM", unix.CLONE_VM), bit("CLONE_FS", unix.CLONE_FS), bit("CLONE_FILES", unix.CLONE_FILES), bit("CLONE_SIGHAND", unix.CLONE_SIGHAND), bit("CLONE_THREAD", unix.CLONE_THREAD),
		bit("CLONE_PTRACE", unix.CLONE_PTRACE), bit("CLONE_VFORK", unix.CLONE_VFORK), bit("CLONE_PARENT", unix.CLONE_PARENT), bit("CLONE_SYSVSEM", unix.CLONE_SYSVSEM), bit("CLONE_SETTLS", unix.CLONE_SETTLS),
		bit("CLONE_PARENT_SETTID", unix.CLONE_PARENT_SETTID), bit("CLONE_CHILD_CLEARTID", unix.CLONE_CHILD_CLEARTID), bit("CLONE_CHILD_SETTID", unix.CLONE_CHILD_SETTID), bit("CLONE_IO", unix.CLONE_IO),
	}
	// CLONE_NEWTIME is in the signal bits of clone's flags, where it means nothing.
	clonedNames = append([]named{}, append(cloneNames[:7:7], cloneNames[8:]...)...)
	mountNames  = []named{
		bit("MS_RDONLY", unix.MS_RDONLY), bit("MS_NOSUID", unix.MS_NOSUID), bit("MS_NODEV", unix.MS_NODEV), bit("MS_NOEXEC", unix.MS_NOEXEC), bit("MS_SYNCHRONOUS", unix.MS_SYNCHRONOUS),
		bit("MS_REMOUNT", unix.MS_REMOUNT), bit("MS_DIRSYNC", unix.MS_DIRSYNC), bit("MS_NOATIME", unix.MS_NOATIME), bit("MS_NODIRATIME", unix.MS_NODIRATIME), bit("MS_BIND", unix.MS_BIND),
		bit("MS_MOVE", unix.MS_MOVE), bit("MS_REC", unix.MS_REC), bit("MS_SILENT", unix.MS_SILENT), bit("MS_UNBINDABLE", unix.MS_UNBINDABLE), bit("MS_PRIVATE", unix.MS_PRIVATE),
		bit("MS_SLAVE", unix.MS_SLAVE), bit("MS_SHARED", unix.MS_SHARED), bit("MS_RELATIME", unix.MS_RELATIME), bit("MS_STRICTATIME", unix.MS_STRICTATIME), bit("MS_LAZYTIME", unix.MS_LAZYTIME),
	}
	umountNames = []named{bit("MNT_FORCE", unix.MNT_FORCE), bit("MNT_DETACH", unix.MNT_DETACH), bit("MNT_EXPIRE", unix.MNT_EXPIRE), bit("UMOUNT_NOFOLLOW", unix.UMOUNT_NOFOLLOW)}
	familyNames = []named{
		choice("AF_UNSPEC", unix.AF_UNSPEC), choice("AF_UNIX", unix.AF_UNIX), choice("AF_INET", unix.AF_INET), choice("AF_INET6", unix.AF_INET6), choice("AF_NETLINK", unix.AF_NETLINK),
		choice("AF_PACKET", unix.AF_PACKET), choice("AF_ALG", unix.AF_ALG), choice("AF_BLUETOOTH", unix.AF_BLUETOOTH), choice("AF_CAN", unix.AF_CAN), choice("AF_KEY", unix.AF_KEY),
		choice("AF_RXRPC", unix.AF_RXRPC), choice("AF_TIPC", unix.AF_TIPC), choice("AF_VSOCK", unix.AF_VSOCK), choice("AF_KCM", unix.AF_KCM), choice("AF_QIPCRTR", unix.AF_QIPCRTR), choice("AF_XDP", unix.AF_XDP),
	}
	socketNames = []named{
		{"SOCK_STREAM", unix.SOCK_STREAM, 0xf}, {"SOCK_DGRAM", unix.SOCK_DGRAM, 0xf}, {"SOCK_RAW", unix.SOCK_RAW, 0xf}, {"SOCK_RDM", unix.SOCK_RDM, 0xf},
		{"SOCK_SEQPACKET", unix.SOCK_SEQPACKET, 0xf}, {"SOCK_PACKET", unix.SOCK_PACKET, 0xf}, bit("SOCK_NONBLOCK", unix.SOCK_NONBLOCK), bit("SOCK_CLOEXEC", unix.SOCK_CLOEXEC),
	}
	acceptNames = socketNames[6:]
	atNames     = []named{
		bit("AT_SYMLINK_NOFOLLOW", unix.AT_SYMLINK_NOFOLLOW), bit("AT_SYMLINK_FOLLOW", unix.AT_SYMLINK_FOLLOW),
		bit("AT_NO_AUTOMOUNT", unix.AT_NO_AUTOMOUNT), bit("AT_EMPTY_PATH", unix.AT_EMPTY_PATH),
	}
	unlinkNames = []named{bit("AT_REMOVEDIR", unix.AT_REMOVEDIR)}
	faccessName = []named{bit("AT_EACCESS", unix.AT_EACCESS), bit("AT_SYMLINK_NOFOLLOW", unix.AT_SYMLINK_NOFOLLOW), bit("AT_EMPTY_PATH", unix.AT_EMPTY_PATH)}
	accessNames = []named{choice("F_OK", 0), bit("R_OK", unix.R_OK), bit("W_OK", unix.W_OK), bit("X_OK", unix.X_OK)}
	renameNames = []named{bit("RENAME_NOREPLACE", unix.RENAME_NOREPLACE), bit("RENAME_EXCHANGE", unix.RENAME_EXCHANGE), bit("RENAME_WHITEOUT", unix.RENAME_WHITEOUT)}
	memfdNames  = []named{bit("MFD_CLOEXEC", unix.MFD_CLOEXEC), bit("MFD_ALLOW_SEALING", unix.MFD_ALLOW_SEALING), bit("MFD_HUGETLB", unix.MFD_HUGETLB), bit("MFD_NOEXEC_SEAL", unix.MFD_NOEXEC_SEAL), bit("MFD_EXEC", unix.MFD_EXEC)}
	dupNames    = []named{bit("O_CLOEXEC", unix.O_CLOEXEC)}
	ptraceNames = []named{
		choice("PTRACE_TRACEME", unix.PTRACE_TRACEME), choice("PTRACE_PEEKTEXT", unix.PTRACE_PEEKTEXT), choice("PTRACE_PEEKDATA", unix.PTRACE_PEEKDATA), choice("PTRACE_PEEKUSER", unix.PTRACE_PEEKUSR),
		choice("PTRACE_POKETEXT", unix.PTRACE_POKETEXT), choice("PTRACE_POKEDATA", unix.PTRACE_POKEDATA), choice("PTRACE_POKEUSER", unix.PTRACE_POKEUSR), choice("PTRACE_CONT", unix.PTRACE_CONT),
		choice("PTRACE_KILL", unix.PTRACE_KILL), choice("PTRACE_SINGLESTEP", unix.PTRACE_SINGLESTEP), choice("PTRACE_ATTACH", unix.PTRACE_ATTACH), choice("PTRACE_DETACH", unix.PTRACE_DETACH),
		choice("PTRACE_SYSCALL", unix.PTRACE_SYSCALL), choice("PTRACE_SEIZE", unix.PTRACE_SEIZE), choice("PTRACE_INTERRUPT", unix.PTRACE_INTERRUPT), choice("PTRACE_LISTEN", unix.PTRACE_LISTEN),
		choice("PTRACE_GETREGSET", unix.PTRACE_GETREGSET), choice("PTRACE_SETREGSET", unix.PTRACE_SETREGSET),
	}
	prctlNames = []named{
		choice("PR_SET_PDEATHSIG", unix.PR_SET_PDEATHSIG), choice("PR_GET_DUMPABLE", unix.PR_GET_DUMPABLE), choice("PR_SET_DUMPABLE", unix.PR_SET_DUMPABLE), choice("PR_SET_KEEPCAPS", unix.PR_SET_KEEPCAPS),
		choice("PR_SET_NAME", unix.PR_SET_NAME), choice("PR_GET_NAME", unix.PR_GET_NAME), choice("PR_SET_SECCOMP", unix.PR_SET_SECCOMP), choice("PR_CAPBSET_READ", unix.PR_CAPBSET_READ), choice("PR_CAPBSET_DROP", unix.PR_CAPBSET_DROP),
		choice("PR_SET_SECUREBITS", unix.PR_SET_SECUREBITS), choice("PR_SET_MM", unix.PR_SET_MM), choice("PR_SET_PTRACER", unix.PR_SET_PTRACER), choice("PR_SET_CHILD_SUBREAPER", unix.PR_SET_CHILD_SUBREAPER),
		choice("PR_SET_NO_NEW_PRIVS", unix.PR_SET_NO_NEW_PRIVS), choice("PR_CAP_AMBIENT", unix.PR_CAP_AMBIENT), choice("PR_SET_SPECULATION_CTRL", unix.PR_SET_SPECULATION_CTRL),
	}
	fcntlNames = []named{
		choice("F_DUPFD", unix.F_DUPFD), choice("F_GETFD", unix.F_GETFD), choice("F_SETFD", unix.F_SETFD), choice("F_GETFL", unix.F_GETFL), choice("F_SETFL", unix.F_SETFL),
		choice("F_DUPFD_CLOEXEC", unix.F_DUPFD_CLOEXEC), choice("F_SETPIPE_SZ", unix.F_SETPIPE_SZ), choice("F_GETPIPE_SZ", unix.F_GETPIPE_SZ), choice("F_ADD_SEALS", unix.F_ADD_SEALS), choice("F_GET_SEALS", unix.F_GET_SEALS),
	}
	ioctlNames  = []named{choice("TIOCSTI", unix.TIOCSTI), choice("TIOCLINUX", 0x541c), choice("TIOCSCTTY", unix.TIOCSCTTY), choice("TCGETS", unix.TCGETS), choice("TCSETS", unix.TCSETS), choice("TIOCGWINSZ", unix.TIOCGWINSZ), choice("TUNSETIFF", unix.TUNSETIFF), choice("FIONREAD", 0x541b), choice("FIONBIO", 0x5421), choice("FICLONE", unix.FICLONE)}
	dirfdNames  = []named{choice("AT_FDCWD", uint64(uint32(0xffffff9c))|0xffffffff00000000)}
	signalNames = func() (all []named) {
		for s := syscall.Signal(1); s < 32; s++ {
			if name := unix.SignalName(s); name != "" {
				all = append(all, choice(name, uint64(s)))
			}
		}
		return all
	}()
)

// namesByCall are the names of an argument's values, by call and argument.
var namesByCall = map[string][]named{
	"open.flags": openNames, "openat.flags": openNames, "mknod.mode": typeNames, "mknodat.mode": typeNames,
	"clone.flags": clonedNames, "unshare.flags": cloneNames, "setns.type": cloneNames,
	"mount.flags": mountNames, "umount2.flags": umountNames, "socket.domain": familyNames, "socketpair.domain": familyNames,
	"socket.type": socketNames, "socketpair.type": socketNames, "accept4.flags": acceptNames, "dup3.flags": dupNames,
	"access.mode": accessNames, "faccessat.mode": accessNames, "faccessat2.mode": accessNames, "faccessat2.flags": faccessName,
	"renameat2.flags": renameNames, "memfd_create.flags": memfdNames, "ptrace.request": ptraceNames, "prctl.option": prctlNames,
	"fcntl.command": fcntlNames, "fcntl64.command": fcntlNames, "ioctl.request": ioctlNames, "unlinkat.flags": unlinkNames,
	"linkat.flags": atNames, "fchmodat2.flags": atNames, "fchownat.flags": atNames, "newfstatat.flags": atNames, "statx.flags": atNames,
	"fstatat64.flags": atNames, "utimensat.flags": atNames, "execveat.flags": atNames, "name_to_handle_at.flags": atNames,
	"chmod.mode": typeNames[7:], "fchmod.mode": typeNames[7:], "fchmodat.mode": typeNames[7:], "fchmodat2.mode": typeNames[7:], "mkdir.mode": typeNames[7:], "mkdirat.mode": typeNames[7:],
}

// namesOf are the names of the values of a call's argument.
func namesOf(call string, p *syscalls.Param) []named {
	switch p.Kind {
	case syscalls.Signal:
		return signalNames
	case syscalls.DirFD:
		return dirfdNames
	}
	return namesByCall[call+"."+p.Name]
}

// spell writes a value by its names, with a number for what has none.
func spell(names []named, v uint64, kind syscalls.Kind) string {
	var parts []string
	left := v
	for _, n := range names {
		switch {
		case v&n.mask != n.value, n.value == 0 && n.mask == ^uint64(0) && v != 0:
		case n.mask == n.value && left&n.value == 0, n.mask == n.value && left&n.value != n.value: // said by a longer one
		default:
			parts = append(parts, n.name)
			left &^= n.mask
		}
	}
	if left != 0 || len(parts) == 0 {
		if kind == syscalls.Mode && left == 0 {
			parts = append(parts, "0")
		} else if kind == syscalls.Mode {
			parts = append(parts, "0"+strconv.FormatUint(left, 8))
		} else {
			parts = append(parts, "0x"+strconv.FormatUint(left, 16))
		}
	}
	return strings.Join(parts, "|")
}
