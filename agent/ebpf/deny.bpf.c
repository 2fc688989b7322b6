/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * Refuses new packet and AF_XDP sockets to what is contained, for as long as its lease lasts.
 *
 * Nothing else is ever refused: not another family, not a socket of the kernel's own, not a process that is in no
 * contained cgroup or network namespace. Each entry carries the end of its lease by the clock that nobody can set,
 * so that it ends with everything of ours dead.
 */
#include "kernel.h"

#define AF_NETLINK 16
#define AF_PACKET 17
#define AF_XDP 44
#define EPERM 1

/* Deepest level of a cgroup that can be contained (agent: MAX_LEVEL). */
#define LEVELS 8

/* What a process may open all the same. */
#define MAY_PACKET 1
#define MAY_ALL 2

struct lookout {
	u32 thread;
	u32 seen;
	u64 cookie;
};

/* Cgroup by id, and the end of its lease (CLOCK_BOOTTIME). */
struct {
	NUMBER(type, MAP_HASH);
	NUMBER(max_entries, 4096);
	TYPE(key, u64);
	TYPE(value, u64);
} cgroups SEC(".maps");

/* Network namespace by cookie, and the end of its lease. */
struct {
	NUMBER(type, MAP_HASH);
	NUMBER(max_entries, 16);
	TYPE(key, u64);
	TYPE(value, u64);
} namespaces SEC(".maps");

/* Process, and what it may open although its network namespace is contained. */
struct {
	NUMBER(type, MAP_HASH);
	NUMBER(max_entries, 256);
	TYPE(key, u32);
	TYPE(value, u32);
} spared SEC(".maps");

/* Sockets refused: packet, AF_XDP. */
struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(max_entries, 2);
	TYPE(key, u32);
	TYPE(value, u64);
} refused SEC(".maps");

/* The loader's question whether this program runs, and in which network namespace the loader is. */
struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct lookout);
} asked SEC(".maps");

INLINE u64 own_namespace(void)
{
	struct nsproxy *nsproxy = current_task()->nsproxy;

	return nsproxy ? nsproxy->net_ns->net_cookie : 0;
}

INLINE int is_contained(const void *map, u64 key, u64 now)
{
	u64 *end = map_lookup(map, &key);

	return end && *end > now;
}

INLINE int is_in_contained_cgroup(u64 now)
{
#pragma unroll
	for (int level = 1; level <= LEVELS; level++) {
		u64 id = current_ancestor_cgroup_id(level);

		if (!id)
			break;
		if (is_contained(&cgroups, id, now))
			return 1;
	}
	return 0;
}

INLINE int is_spared(u32 tgid, int family)
{
	u32 *may = map_lookup(&spared, &tgid);

	return may && (*may == MAY_ALL || (*may == MAY_PACKET && family == AF_PACKET));
}

INLINE void answer(u32 thread)
{
	u32 first = 0;
	struct lookout *question = map_lookup(&asked, &first);

	if (question && question->thread == thread) {
		question->cookie = own_namespace();
		question->seen = 1;
	}
}

/* int socket_create(int family, int type, int protocol, int kern); whoever refused before us was the last to be asked. */
INLINE int judge(u64 *arguments)
{
	int family = (int)arguments[0];
	int kernel = (int)arguments[3];
	u64 now, process, *count;
	u32 which;

	if (kernel)
		return 0;
	if (family != AF_PACKET && family != AF_XDP && family != AF_NETLINK)
		return 0;
	process = current_pid_tgid();
	if (family == AF_NETLINK) {
		answer((u32)process);
		return 0;
	}
	now = boot_ns();
	if (!is_in_contained_cgroup(now) &&
	    (!is_contained(&namespaces, own_namespace(), now) || is_spared(process >> 32, family)))
		return 0;
	which = family == AF_XDP;
	count = map_lookup(&refused, &which);
	if (count)
		__sync_fetch_and_add(count, 1);
	return -EPERM;
}

SEC("lsm/socket_create")
int deny_socket(u64 *arguments)
{
	return judge(arguments);
}

/* The same for tests, which run it with arguments of their own; it is never attached. */
SEC("raw_tp/socket_create")
int try_socket(u64 *arguments)
{
	return judge(arguments);
}

/* The licence that the kernel asks for; "Dual MIT/GPL" is one of the words it knows (include/linux/license.h). */
char licence[] SEC("license") = "Dual MIT/GPL";
