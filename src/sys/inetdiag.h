/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_INETDIAG_H
#define PC_SYS_INETDIAG_H
/*
 * What TCP knows of one connection of this network namespace, asked for by its two addresses
 * (sock_diag(7)): whoever asks needs no descriptor of it.
 */
#include <stdbool.h>
#include <stdint.h>

struct ends;

struct inetdiag {
	uint32_t rtt_us, rttvar_us;
	uint32_t retransmits;	/* segments sent again since the connection was made */
	uint32_t retrying;	/* times that the oldest unacknowledged one was sent again so far */
	uint32_t unacked;	/* segments on their way, not acknowledged */
	uint32_t probes;	/* of an idle connection or a full peer, unanswered */
	uint32_t ack_age_ms;	/* since the peer acknowledged anything, probes as well */
	uint32_t data_age_ms;	/* since data came */
	uint8_t congestion;	/* 0 open, 1 disorder, 2 cwr, 3 recovery, 4 loss */
};

/* A socket to ask with; -1 with errno. */
int inetdiag_open(void);
/* 0; -ENOENT: there is no such connection here; or -errno: the kernel does not say. */
int inetdiag_ask(int fd, const struct ends *e, struct inetdiag *out);
/* Milliseconds since anything at all came from the peer. */
uint32_t inetdiag_silence(const struct inetdiag *d);
/* Is an answer of the peer's kernel due? */
bool inetdiag_waits(const struct inetdiag *d);
/* "open", "disorder", "cwr", "recovery", "loss", "unknown" */
const char *inetdiag_congestion(const struct inetdiag *d);

#endif
