package machine

import (
	"slices"
	"strings"
)

// timing are the kernel's boot parameters that change what a system call or a
// wake-up costs (Documentation/admin-guide/kernel-parameters.txt). A command line
// also names disks, consoles and services, and results are published: what is not
// on this list is not looked at. A name that ends in a dot is a prefix.
var timing = []string{
	// Mitigations: most are paid on each entry to the kernel.
	"mitigations", "pti", "nopti", "kpti", "nospectre_v1", "nospectre_v2", "nospectre_bhb", "spectre_v2",
	"spectre_v2_user", "spectre_bhi", "spec_store_bypass_disable", "nospec_store_bypass_disable", "ssbd", "retbleed",
	"spec_rstack_overflow", "indirect_target_selection", "l1tf", "mds", "tsx_async_abort", "mmio_stale_data", "srbds",
	"gather_data_sampling", "reg_file_data_sampling", "tsa", "vmscape", "tsx", "nopcid", "noinvpcid", "nosmap", "nosmep",
	"randomize_kstack_offset",
	// Which CPUs there are, and what else runs on them.
	"isolcpus", "nohz", "nohz_full", "rcu_nocbs", "rcu_nocb_poll", "rcupdate.rcu_normal", "rcupdate.rcu_expedited",
	"rcupdate.rcu_normal_after_boot", "rcutree.use_softirq", "irqaffinity", "threadirqs", "maxcpus", "nr_cpus",
	"possible_cpus", "nosmp", "nosmt", "numa_balancing",
	// The scheduler and the clocks.
	"preempt", "sched_autogroup", "noautogroup", "psi", "skew_tick", "highres", "clocksource", "tsc", "hpet",
	"no_timer_check", "nohalt",
	// Idle states and frequencies.
	"idle", "nohlt", "hlt", "intel_idle.", "processor.", "cpuidle.", "cpuidle_haltpoll.", "haltpoll.", "intel_pstate",
	"amd_pstate", "amd_pstate.", "cpufreq.",
	// What a hypervisor is asked for.
	"nopv", "nopvspin", "no-kvmclock", "no-kvmclock-vsyscall", "no-kvmapf", "no-steal-acc", "xen_nopv", "xen_nopvspin",
	"pv_lock_ops", "hv_nopvspin", "kvm.halt_poll_ns", "x2apic_phys", "nox2apic",
	// Memory, and checks of it.
	"transparent_hugepage", "init_on_alloc", "init_on_free", "page_poison", "debug_pagealloc", "slab_debug", "slub_debug",
	"kfence.", "kasan", "kasan.", "kcsan.",
	// What hooks system calls.
	"audit", "lsm", "security", "apparmor", "selinux", "nowatchdog", "nmi_watchdog",
}

// bootParams returns, in their order, the parameters of a kernel's command line
// that change timing, or "none".
func bootParams(cmdline string) string {
	var kept []string
	quoted := false
	words := strings.FieldsFunc(cmdline, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	})
	for _, w := range words {
		if w == "--" {
			break // the rest is for init
		}
		// The kernel takes - for _ in names.
		name, _, _ := strings.Cut(w, "=")
		name = strings.ReplaceAll(name, "-", "_")
		if slices.ContainsFunc(timing, func(t string) bool {
			t = strings.ReplaceAll(t, "-", "_")
			return name == t || strings.HasSuffix(t, ".") && strings.HasPrefix(name, t)
		}) {
			kept = append(kept, w)
		}
	}
	if len(kept) == 0 {
		return "none"
	}
	return strings.Join(kept, " ")
}
