/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The second screen of the terminal, so that what stood there comes back.  Modes are changed only
 * by a job that owns the terminal, and each frame is one write that overwrites the last one line by
 * line: clearing first would flicker.
 */
#include "config.h"
#include "tools/ctl_term.h"
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ENTER_SCREEN "\033[?1049h\033[?25l\033[2J"
#define LEAVE_SCREEN "\033[?25h\033[?1049l"
#define HOME	     "\033[H"
#define END_OF_LINE  "\033[K"
#define REST	     "\033[J"

/**
 * ctl_term_usable - is stdout a terminal that can be drawn on?
 */
bool ctl_term_usable(void)
{
	const char *kind = g_getenv("TERM");

	return isatty(STDOUT_FILENO) && kind && *kind && strcmp(kind, "dumb");
}

static void say(const char *text)
{
	fputs(text, stdout);
	fflush(stdout);
}

/* A job in the background must not touch the terminal's modes: the kernel would stop it. */
static bool owns_keys(void)
{
	return isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/**
 * ctl_term_enter - take the second screen, and the keys when they are ours to take
 */
void ctl_term_enter(struct ctl_term *t)
{
	struct termios raw;

	t->keys = owns_keys() && tcgetattr(STDIN_FILENO, &t->before) == 0;
	if (t->keys) {
		raw = t->before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
	}
	say(ENTER_SCREEN);
	t->on = true;
}

/**
 * ctl_term_leave - everything as before; once more is harmless
 */
void ctl_term_leave(struct ctl_term *t)
{
	if (!t->on)
		return;
	say(LEAVE_SCREEN);
	if (t->keys)
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &t->before);
	t->on = false;
}

/**
 * ctl_term_size - of the window; 80x24 when it does not say
 */
struct ctl_size ctl_term_size(void)
{
	struct winsize ws;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) < 0 || ws.ws_col == 0 || ws.ws_row == 0)
		return (struct ctl_size){80, 24};
	return (struct ctl_size){ws.ws_col, ws.ws_row};
}

/**
 * ctl_term_draw - show @page, in one write
 *
 * The last line gets no newline: on a full screen it would scroll.
 */
void ctl_term_draw(const char *page)
{
	g_autoptr(GString) frame = g_string_new(HOME);

	for (const char *nl; (nl = strchr(page, '\n')); page = nl + 1) {
		g_string_append_len(frame, page, nl - page);
		g_string_append(frame, nl[1] ? END_OF_LINE "\r\n" : END_OF_LINE);
	}
	g_string_append(frame, REST);
	say(frame->str);
}
