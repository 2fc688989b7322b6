/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * What the programs here know of the kernel: helpers and map types by their numbers, which are user space API
 * (linux/bpf.h), and of the kernel's own structures the few members they read. Where those are, the loader asks
 * the running kernel (BTF): their order and everything else of them is left out.
 */
#ifndef SEKISHO_KERNEL_H
#define SEKISHO_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define FROM_BTF __attribute__((preserve_access_index))

/* How a map is declared: the numbers of a declaration are those of array types (libbpf's convention). */
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, of) of *name

enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_LRU_HASH = 9 };

static void *(*const map_lookup)(const void *map, const void *key) = (void *)1;
static long (*const map_update)(const void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*const current_pid_tgid)(void) = (void *)14;
static u64 (*const current_uid_gid)(void) = (void *)15;
static long (*const current_comm)(void *buffer, u32 size) = (void *)16;
static u64 (*const current_cgroup_id)(void) = (void *)80;
static u64 (*const current_ancestor_cgroup_id)(int level) = (void *)123;
static u64 (*const boot_ns)(void) = (void *)125;
static struct task_struct *(*const current_task)(void) = (void *)158;

struct net {
	u64 net_cookie;
} FROM_BTF;

struct nsproxy {
	struct net *net_ns;
} FROM_BTF;

struct task_struct {
	struct nsproxy *nsproxy;
} FROM_BTF;

#endif
