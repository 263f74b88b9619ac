/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_PROBE_H
#define PC_CORE_PROBE_H
/*
 * USDT probes (provider `postcopyd`): free when nobody looks.  One at each step of a fault's way;
 * postcopy-probes in HACKING lists them with their arguments.
 */
#ifdef HAVE_SYS_SDT_H
#include <sys/sdt.h>
#define PROBE1(name, a)		 DTRACE_PROBE1(postcopyd, name, a)
#define PROBE2(name, a, b)	 DTRACE_PROBE2(postcopyd, name, a, b)
#define PROBE3(name, a, b, c)	 DTRACE_PROBE3(postcopyd, name, a, b, c)
#else
#define PROBE1(name, a)		 do { } while (0)
#define PROBE2(name, a, b)	 do { } while (0)
#define PROBE3(name, a, b, c)	 do { } while (0)
#endif

#endif
