package filter

import (
	"slices"
	"strings"
)

// replaced maps a call that only 32-bit programs have to the 64-bit calls that
// do its work, most alike first: amd64 kept many old calls that arm64 never had.
// Names that only carry a suffix (stat64, chown32, futex_time64) are not listed.
var replaced = map[string][]string{
	"_llseek":             {"lseek"},
	"_newselect":          {"select", "pselect6"},
	"access":              {"faccessat"},
	"arm_fadvise64_64":    {"fadvise64"},
	"arm_sync_file_range": {"sync_file_range"},
	"chmod":               {"fchmodat"},
	"chown":               {"fchownat"},
	"creat":               {"openat"},
	"dup2":                {"dup3"},
	"epoll_create":        {"epoll_create1"},
	"epoll_wait":          {"epoll_pwait"},
	"eventfd":             {"eventfd2"},
	"fadvise64_64":        {"fadvise64"},
	"fork":                {"clone"},
	"fstatat64":           {"newfstatat"},
	"futimesat":           {"utimensat"},
	"getdents":            {"getdents64"},
	"getpgrp":             {"getpgid"},
	"inotify_init":        {"inotify_init1"},
	"lchown":              {"fchownat"},
	"link":                {"linkat"},
	"lstat":               {"newfstatat"},
	"mkdir":               {"mkdirat"},
	"mknod":               {"mknodat"},
	"mmap2":               {"mmap"},
	"nice":                {"setpriority"},
	"oldfstat":            {"fstat"},
	"oldlstat":            {"lstat"},
	"oldolduname":         {"uname"},
	"oldstat":             {"stat"},
	"olduname":            {"uname"},
	"open":                {"openat"},
	"pause":               {"ppoll"},
	"pipe":                {"pipe2"},
	"poll":                {"ppoll"},
	"readdir":             {"getdents"},
	"readlink":            {"readlinkat"},
	"recv":                {"recvfrom"}, // by socketcall
	"rename":              {"renameat"},
	"rmdir":               {"unlinkat"},
	"send":                {"sendto"}, // by socketcall
	"sgetmask":            {"rt_sigprocmask"},
	"sigaction":           {"rt_sigaction"},
	"signal":              {"rt_sigaction"},
	"signalfd":            {"signalfd4"},
	"sigpending":          {"rt_sigpending"},
	"sigprocmask":         {"rt_sigprocmask"},
	"sigreturn":           {"rt_sigreturn"},
	"sigsuspend":          {"rt_sigsuspend"},
	"ssetmask":            {"rt_sigprocmask"},
	"stat":                {"newfstatat"},
	"stime":               {"settimeofday"},
	"symlink":             {"symlinkat"},
	"ugetrlimit":          {"getrlimit"},
	"umount":              {"umount2"},
	"unlink":              {"unlinkat"},
	"ustat":               {"statfs"},
	"utimes":              {"utimensat"},
	"vfork":               {"clone"},
	"waitpid":             {"wait4"},
}

// withoutTwin are the calls of 32-bit programs that nothing in the 64-bit ABI
// stands for. socketcall and ipc are trapped by their first argument, with the
// calls that they multiplex; the rest does nothing on a 64-bit kernel.
var withoutTwin = map[string]bool{
	"socketcall": true, "ipc": true,
	"_sysctl": true, "bdflush": true, "break": true, "ftime": true, "gtty": true, "idle": true, "lock": true, "mpx": true,
	"pciconfig_iobase": true, "pciconfig_read": true, "pciconfig_write": true, "prof": true, "profil": true, "stty": true,
	"sysfs": true, "ulimit": true, "uselib": true, "vm86": true, "vm86old": true, "vserver": true,
}

// twinOf returns the 64-bit call that does what the 32-bit call name does: name
// itself if it is one, "" if there is none.
func twinOf(name string, native func(string) bool) string {
	if native(name) {
		return name
	}
	for _, n := range replaced[name] {
		if t := twinOf(n, native); t != "" {
			return t
		}
	}
	for _, suffix := range []string{"_time64", "64", "32"} {
		if short, ok := strings.CutSuffix(name, suffix); ok && short != "" {
			if t := twinOf(short, native); t != "" {
				return t
			}
		}
	}
	return ""
}

// twins are the calls of 32-bit programs that are trapped with a native call.
func twins(name string) ([]string, error) {
	if _, err := number(name); err != nil {
		return nil, err
	}
	return slices.Clone(nativeTwin()[name]), nil
}

// unknown is the error for a name that is no native call's: it may be one of 32-bit programs, or a slip for
// one that is known.
func unknown(name string, known []string) error {
	for native, twins := range nativeTwin() {
		if slices.Contains(twins, name) {
			return &UnknownError{Name: name, Native: native}
		}
	}
	return &UnknownError{Name: name, Nearest: nearest(name, known)}
}
