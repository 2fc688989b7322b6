/* Ways out of a host for which no safe Rust wrapper exists: packet sockets that bypass the queueing discipline or use
   a transmit ring, AF_XDP, frames injected behind a TUN device, and BPF programs that send frames past netfilter.
   ways send KIND DEVICE HEX-FRAME TIMES   prints how many were sent
   ways attach KIND DEVICE [TARGET]        prints ready, holds until standard input closes */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FRAMES 64
#define SIZE 2048
/* BPF_TCX_INGRESS (linux/bpf.h since 6.6): older headers lack the name. */
#define TCX_INGRESS 46

static unsigned char frame[SIZE];
static size_t length;

static int fail(const char *what) {
    perror(what);
    return 1;
}

static int packet_socket(int type, int protocol, const char *device) {
    int s = socket(AF_PACKET, type, 0);
    struct sockaddr_ll to;
    memset(&to, 0, sizeof to);
    to.sll_family = AF_PACKET;
    to.sll_protocol = htons((uint16_t)protocol);
    to.sll_ifindex = (int)if_nametoindex(device);
    if (s >= 0 && bind(s, (struct sockaddr *)&to, sizeof to) < 0) {
        close(s);
        return -1;
    }
    return s;
}

static int send_bypass(const char *device, int times) {
    int one = 1, sent = 0, s = packet_socket(SOCK_RAW, 0, device);
    if (s < 0) return fail("packet socket");
    if (setsockopt(s, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) < 0) return fail("PACKET_QDISC_BYPASS");
    for (int i = 0; i < times; i++, usleep(2000)) sent += send(s, frame, length, 0) == (ssize_t)length;
    printf("%d\n", sent);
    return 0;
}

static int send_dgram(const char *device, int times) {
    int sent = 0, s = packet_socket(SOCK_DGRAM, 0, device);
    struct sockaddr_ll to;
    if (s < 0) return fail("packet socket");
    memset(&to, 0, sizeof to);
    to.sll_family = AF_PACKET;
    to.sll_protocol = htons(ETH_P_IP);
    to.sll_ifindex = (int)if_nametoindex(device);
    to.sll_halen = 6;
    memcpy(to.sll_addr, frame, 6);
    for (int i = 0; i < times; i++, usleep(2000))
        sent += sendto(s, frame + 14, length - 14, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)length - 14;
    printf("%d\n", sent);
    return 0;
}

static int send_ring(const char *device, int times) {
    int version = TPACKET_V2, sent = 0, s = packet_socket(SOCK_RAW, 0, device);
    struct tpacket_req ring = {4096, 8, SIZE, 16};
    if (s < 0) return fail("packet socket");
    if (setsockopt(s, SOL_PACKET, PACKET_VERSION, &version, sizeof version) < 0) return fail("PACKET_VERSION");
    if (setsockopt(s, SOL_PACKET, PACKET_TX_RING, &ring, sizeof ring) < 0) return fail("PACKET_TX_RING");
    unsigned char *map = mmap(NULL, 4096 * 8, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
    if (map == MAP_FAILED) return fail("mmap");
    for (int i = 0; i < times; i++, usleep(2000)) {
        struct tpacket2_hdr *head = (struct tpacket2_hdr *)(map + (i % 16) * SIZE);
        memcpy((unsigned char *)head + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll), frame, length);
        head->tp_len = (uint32_t)length;
        head->tp_status = TP_STATUS_SEND_REQUEST;
        sent += send(s, NULL, 0, 0) >= 0;
    }
    printf("%d\n", sent);
    return 0;
}

static int send_xsk(const char *device, int times) {
    int sent = 0, s = socket(AF_XDP, SOCK_RAW, 0), count = FRAMES;
    unsigned char *memory = mmap(NULL, FRAMES * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct xdp_umem_reg area;
    struct xdp_mmap_offsets offsets;
    struct sockaddr_xdp to;
    socklen_t size = sizeof offsets;
    if (s < 0) return fail("AF_XDP");
    memset(&area, 0, sizeof area);
    area.addr = (uint64_t)(uintptr_t)memory;
    area.len = FRAMES * SIZE;
    area.chunk_size = SIZE;
    if (setsockopt(s, SOL_XDP, XDP_UMEM_REG, &area, sizeof area) < 0) return fail("XDP_UMEM_REG");
    for (int i = 0; i < 3; i++) {
        int option = (int[]){XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING}[i];
        if (setsockopt(s, SOL_XDP, option, &count, sizeof count) < 0) return fail("rings");
    }
    if (getsockopt(s, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size) < 0) return fail("XDP_MMAP_OFFSETS");
    unsigned char *tx = mmap(NULL, offsets.tx.desc + FRAMES * sizeof(struct xdp_desc), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_POPULATE, s, XDP_PGOFF_TX_RING);
    if (tx == MAP_FAILED) return fail("mmap");
    memset(&to, 0, sizeof to);
    to.sxdp_family = AF_XDP;
    to.sxdp_flags = XDP_COPY;
    to.sxdp_ifindex = if_nametoindex(device);
    if (bind(s, (struct sockaddr *)&to, sizeof to) < 0) return fail("bind AF_XDP");
    for (int i = 0; i < times && i < FRAMES; i++, usleep(2000)) {
        struct xdp_desc *descriptor = (struct xdp_desc *)(tx + offsets.tx.desc) + i;
        memcpy(memory + i * SIZE, frame, length);
        descriptor->addr = (uint64_t)i * SIZE;
        descriptor->len = (uint32_t)length;
        descriptor->options = 0;
        __atomic_store_n((uint32_t *)(tx + offsets.tx.producer), (uint32_t)i + 1, __ATOMIC_RELEASE);
        sent += sendto(s, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0;
    }
    printf("%d\n", sent);
    fflush(stdout);
    usleep(20000);
    return 0;
}

static int send_tun(const char *device, int times) {
    struct ifreq request;
    int sent = 0, fd = open("/dev/net/tun", O_RDWR);
    if (fd < 0) return fail("/dev/net/tun");
    memset(&request, 0, sizeof request);
    strncpy(request.ifr_name, device, IFNAMSIZ - 1);
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (ioctl(fd, TUNSETIFF, &request) < 0) return fail("TUNSETIFF");
    for (int i = 0; i < times; i++, usleep(2000)) sent += write(fd, frame + 14, length - 14) == (ssize_t)length - 14;
    printf("%d\n", sent);
    return 0;
}

static int load(int type, const struct bpf_insn *code, int count) {
    static char log[65536];
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = (uint32_t)type;
    attr.insns = (uint64_t)(uintptr_t)code;
    attr.insn_cnt = (uint32_t)count;
    attr.license = (uint64_t)(uintptr_t) "GPL";
    attr.log_buf = (uint64_t)(uintptr_t)log;
    attr.log_size = sizeof log;
    attr.log_level = 1;
    return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
}

static int attach(const char *kind, const char *device, const char *target) {
    int type = BPF_PROG_TYPE_SCHED_CLS, where = TCX_INGRESS, flags = 0, count = 0;
    struct bpf_insn code[8];
    memset(code, 0, sizeof code);
#define SET(reg, value) code[count++] = (struct bpf_insn){.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = reg, .imm = value}
#define CALL(helper) code[count++] = (struct bpf_insn){.code = BPF_JMP | BPF_CALL, .imm = helper}
    int to = target ? (int)if_nametoindex(target) : 0;
    if (!strcmp(kind, "xdp-tx")) {
        type = BPF_PROG_TYPE_XDP, where = BPF_XDP, flags = 2 /* XDP_FLAGS_SKB_MODE */;
        SET(0, XDP_TX);
    } else if (!strcmp(kind, "xdp-redirect")) {
        type = BPF_PROG_TYPE_XDP, where = BPF_XDP, flags = 2;
        SET(1, to);
        SET(2, 0);
        CALL(BPF_FUNC_redirect);
    } else if (!strcmp(kind, "tcx-redirect")) {
        SET(1, to);
        SET(2, 0);
        CALL(BPF_FUNC_redirect);
    } else if (!strcmp(kind, "tcx-redirect-neigh")) {
        SET(1, to);
        SET(2, 0);
        SET(3, 0);
        SET(4, 0);
        CALL(BPF_FUNC_redirect_neigh);
    } else {
        fprintf(stderr, "no way is called %s\n", kind);
        return 2;
    }
    code[count++] = (struct bpf_insn){.code = BPF_JMP | BPF_EXIT};
    int program = load(type, code, count);
    if (program < 0) return fail("BPF_PROG_LOAD");
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.link_create.prog_fd = (uint32_t)program;
    attr.link_create.target_ifindex = if_nametoindex(device);
    attr.link_create.attach_type = (uint32_t)where;
    attr.link_create.flags = (uint32_t)flags;
    if (syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof attr) < 0) return fail("BPF_LINK_CREATE");
    printf("{\"ready\": true}\n");
    fflush(stdout);
    char ignored[64];
    while (read(0, ignored, sizeof ignored) > 0) {
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc >= 4 && !strcmp(argv[1], "attach")) return attach(argv[2], argv[3], argc > 4 ? argv[4] : NULL);
    if (argc != 6 || strcmp(argv[1], "send")) return 2;
    for (const char *p = argv[4]; p[0] && p[1] && length < sizeof frame; p += 2) {
        char pair[3] = {p[0], p[1], 0};
        frame[length++] = (unsigned char)strtoul(pair, NULL, 16);
    }
    int times = atoi(argv[5]);
    if (!strcmp(argv[2], "bypass")) return send_bypass(argv[3], times);
    if (!strcmp(argv[2], "dgram")) return send_dgram(argv[3], times);
    if (!strcmp(argv[2], "ring")) return send_ring(argv[3], times);
    if (!strcmp(argv[2], "xsk")) return send_xsk(argv[3], times);
    if (!strcmp(argv[2], "tun")) return send_tun(argv[3], times);
    fprintf(stderr, "no way is called %s\n", argv[2]);
    return 2;
}
