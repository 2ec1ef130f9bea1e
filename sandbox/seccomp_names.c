/* System call names to numbers: libseccomp's tables, and for what is younger than the libseccomp at hand a
 * short one of our own. Since 5.1 new calls have the same number on every architecture, but for the offsets
 * of the ABIs that have one. */
#include <linux/audit.h>
#include <seccomp.h>
#include <string.h>

#include "sandbox/seccomp_gen.h"

static const struct {
	const char *name;
	int nr;
} young[] = {
	{"cachestat", 451},
	{"fchmodat2", 452},
	{"map_shadow_stack", 453},
	{"futex_wake", 454},
	{"futex_wait", 455},
	{"futex_requeue", 456},
	{"statmount", 457},
	{"listmount", 458},
	{"lsm_get_self_attr", 459},
	{"lsm_set_self_attr", 460},
	{"lsm_list_modules", 461},
	{"mseal", 462},
	{"setxattrat", 463},
	{"getxattrat", 464},
	{"listxattrat", 465},
	{"removexattrat", 466},
	{"open_tree_attr", 467},
	{"file_getattr", 468},
	{"file_setattr", 469},
};

int pf_sc_number(uint32_t token, const char *name)
{
	int nr = seccomp_syscall_resolve_name_arch(token, name);

	if (nr >= 0)
		return nr;
	/* Other negative numbers are libseccomp's own, for calls that another architecture has. */
	if (nr != __NR_SCMP_ERROR)
		return -1;
	switch (token) {
	case SCMP_ARCH_X32:
		nr = (int)PF_SC_X32_BIT;
		break;
	case SCMP_ARCH_MIPS:
	case SCMP_ARCH_MIPSEL:
		nr = 4000;
		break;
	case SCMP_ARCH_MIPS64:
	case SCMP_ARCH_MIPSEL64:
		nr = 5000;
		break;
	case SCMP_ARCH_MIPS64N32:
	case SCMP_ARCH_MIPSEL64N32:
		nr = 6000;
		break;
	default:
		nr = 0;
	}
	for (size_t i = 0; i < sizeof(young) / sizeof(young[0]); i++)
		if (strcmp(young[i].name, name) == 0)
			return nr + young[i].nr;
	return -1;
}
