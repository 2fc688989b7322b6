/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * Remembers which process opened a TCP connection or sent to a UDP end, so that it can be named when it is long gone.
 *
 * Attached to the root of cgroup v2. Runs once for each connection, at a few events of its life, and for each datagram
 * of a socket that is not connected; never for a packet. It changes nothing: every call is allowed, every reply is
 * left as it is. The tables forget the oldest.
 */
#include "kernel.h"

#define AF_INET 2
#define AF_INET6 10
#define TCP 6
#define UDP 17
/* BPF_SOCK_OPS_TCP_CONNECT_CB: a SYN is about to leave, and both ends are known. */
#define CONNECTING 3

/* struct bpf_sock_addr, struct bpf_sock and struct bpf_sock_ops (linux/bpf.h): user space API, the members used. */
struct socket_told {
	u32 bound_device;
	u32 family;
	u32 type;
	u32 protocol;
	u32 mark;
	u32 priority;
	u32 source4;
	u32 source6[4];
	u32 source_port;
};

struct address_told {
	u32 user_family;
	u32 user4;
	u32 user6[4];
	u32 user_port;
	u32 family;
	u32 type;
	u32 protocol;
	u32 source4;
	u32 source6[4];
	u64 socket __attribute__((aligned(8)));
};

struct event_told {
	u32 op;
	u32 arguments[4];
	u32 family;
	u32 remote4;
	u32 local4;
	u32 remote6[4];
	u32 local6[4];
	u32 remote_port;
	u32 local_port;
};

static u64 (*const socket_cookie)(void *told) = (void *)46;
static u64 (*const namespace_cookie)(void *told) = (void *)122;

/*
 * Ends as they are on the wire, addresses of IPv4 mapped into IPv6, ports as the host writes them. Of UDP the own address
 * is left out; a connected UDP socket has no own port yet when it is seen.
 */
struct ends {
	u32 local[4];
	u32 remote[4];
	u32 transport;
	u16 local_port;
	u16 remote_port;
};

struct opener {
	u64 at;
	u64 cgroup;
	u64 namespace;
	u32 process;
	u32 user;
	char name[16];
};

/* By cookie of the socket, between connect() and the SYN. */
struct {
	NUMBER(type, MAP_LRU_HASH);
	NUMBER(max_entries, 4096);
	TYPE(key, u64);
	TYPE(value, struct opener);
} starting SEC(".maps");

struct {
	NUMBER(type, MAP_LRU_HASH);
	NUMBER(max_entries, 32768);
	TYPE(key, struct ends);
	TYPE(value, struct opener);
} openers SEC(".maps");

INLINE u16 swap(u32 port)
{
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap16(port) : port;
}

INLINE void put4(u32 *to, u32 address)
{
	const u8 mapped[4] = {0, 0, 0xff, 0xff};

	__builtin_memcpy(&to[2], mapped, sizeof(mapped));
	to[3] = address;
}

INLINE void describe(void *told, struct opener *opener)
{
	opener->at = boot_ns();
	opener->cgroup = current_cgroup_id();
	opener->namespace = namespace_cookie(told);
	opener->process = current_pid_tgid() >> 32;
	opener->user = (u32)current_uid_gid();
	current_comm(opener->name, sizeof(opener->name));
}

INLINE void remember_datagram(struct address_told *told, struct ends *ends)
{
	struct opener opener = {};

	ends->transport = UDP;
	ends->remote_port = swap(told->user_port);
	describe(told, &opener);
	map_update(&openers, ends, &opener, 0);
}

INLINE int connecting(struct address_told *told, struct ends *ends)
{
	struct opener opener = {};
	u64 cookie;

	if (told->protocol == UDP) {
		remember_datagram(told, ends);
	} else if (told->protocol == TCP) {
		cookie = socket_cookie(told);
		describe(told, &opener);
		map_update(&starting, &cookie, &opener, 0);
	}
	return 1;
}

#define COPY6(to, from) \
	do { \
		(to)[0] = (from)[0]; \
		(to)[1] = (from)[1]; \
		(to)[2] = (from)[2]; \
		(to)[3] = (from)[3]; \
	} while (0)

SEC("cgroup/connect4")
int connect4(struct address_told *told)
{
	struct ends ends = {};

	put4(ends.remote, told->user4);
	return connecting(told, &ends);
}

SEC("cgroup/connect6")
int connect6(struct address_told *told)
{
	struct ends ends = {};

	COPY6(ends.remote, told->user6);
	return connecting(told, &ends);
}

INLINE int sending(struct address_told *told, struct ends *ends)
{
	struct socket_told *socket = (struct socket_told *)told->socket;

	if (socket)
		ends->local_port = socket->source_port;
	remember_datagram(told, ends);
	return 1;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct address_told *told)
{
	struct ends ends = {};

	put4(ends.remote, told->user4);
	return sending(told, &ends);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct address_told *told)
{
	struct ends ends = {};

	COPY6(ends.remote, told->user6);
	return sending(told, &ends);
}

SEC("sockops")
int connected(struct event_told *told)
{
	struct ends ends = {};
	struct opener *opener, copy;
	u64 cookie;

	if (told->op != CONNECTING)
		return 1;
	cookie = socket_cookie(told);
	opener = map_lookup(&starting, &cookie);
	if (!opener)
		return 1;
	if (told->family == AF_INET) {
		put4(ends.local, told->local4);
		put4(ends.remote, told->remote4);
	} else if (told->family == AF_INET6) {
		COPY6(ends.local, told->local6);
		COPY6(ends.remote, told->remote6);
	} else {
		return 1;
	}
	ends.transport = TCP;
	ends.local_port = told->local_port;
	/* A word in the order of the network. */
	ends.remote_port = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap32(told->remote_port)
								     : told->remote_port;
	copy = *opener;
	map_update(&openers, &ends, &copy, 0);
	return 1;
}

/* As in deny.bpf.c. */
char licence[] SEC("license") = "Dual MIT/GPL";
