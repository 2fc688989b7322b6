/* Sends one frame N times over AF_PACKET with PACKET_QDISC_BYPASS: no safe Rust wrapper sets that option. */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    unsigned char frame[2048];
    size_t length = 0;
    int one = 1, sent = 0;
    if (argc != 4) return 2;
    for (const char *p = argv[2]; p[0] && p[1] && length < sizeof frame; p += 2) {
        char pair[3] = {p[0], p[1], 0};
        frame[length++] = (unsigned char)strtoul(pair, NULL, 16);
    }
    int s = socket(AF_PACKET, SOCK_RAW, 0);
    if (s < 0) { perror("socket"); return 1; }
    if (setsockopt(s, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) < 0) { perror("PACKET_QDISC_BYPASS"); return 1; }
    struct sockaddr_ll to;
    memset(&to, 0, sizeof to);
    to.sll_family = AF_PACKET;
    to.sll_ifindex = (int)if_nametoindex(argv[1]);
    if (bind(s, (struct sockaddr *)&to, sizeof to) < 0) { perror("bind"); return 1; }
    for (int i = 0; i < atoi(argv[3]); i++) {
        if (send(s, frame, length, 0) == (ssize_t)length) sent++;
        usleep(2000);
    }
    printf("%d\n", sent);
    return 0;
}
