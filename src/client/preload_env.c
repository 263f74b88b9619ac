/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the environment asks for, and taking it out again.
 *
 * The two variables must reach the program through whatever starts it (setpriv, env, numactl, a
 * shell that execs), and must not reach what the program starts.  From inside the two look alike:
 * an image that was loaded with them.  With `program' the right one is known by its name, and what
 * is not it does nothing.  Without, a fork is taken for the line between them: who starts the
 * program by exec does not fork before, and what the program starts it forks for.
 *
 * Taking them out is done in the array itself.  In a child of a program with threads the heap, and
 * the lock behind unsetenv(), may belong to a thread that is not there.
 */
#include "config.h"

#include "client/preload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wire/keyval.h"

#define VARIABLE "POSTCOPY_PRELOAD"
#define OURSELF	 "libpostcopy-preload.so"

/* "LD_PRELOAD=" and the libraries that are none of ours; empty: there are none. */
static char others[4096];

struct word {
	const char *text;
	uint32_t value;
};

static bool look_up(const struct word *words, const char *text, uint32_t *value)
{
	for (; words->text; words++)
		if (strcmp(words->text, text) == 0) {
			*value = words->value;
			return true;
		}
	return false;
}

static int wrong(char *why, const char *key, const char *expected)
{
	snprintf(why, PRELOAD_WHY, VARIABLE ": %s: %s", key, expected);
	return -EINVAL;
}

static int take_text(const struct keyval *kv, const char *key, char *to, size_t room, char *why)
{
	const char *text = keyval_get(kv, key);

	if (!text || !*text)
		return wrong(why, key, "is missing");
	if (strlen(text) >= room)
		return wrong(why, key, "is too long");
	strcpy(to, text);
	return 0;
}

static int take_words(struct keyval *kv, struct preload_options *o, char *why)
{
	static const struct word roles[] = { { "main", true }, { "sharer", false }, { NULL, 0 } };
	static const struct word policies[] = { { "ignore", REGMSG_POLICY_IGNORE },
						{ "disable", REGMSG_POLICY_DISABLE },
						{ "fail", REGMSG_POLICY_FAIL },
						{ NULL, 0 } };
	const char *role = keyval_get(kv, "role"), *policy = keyval_get(kv, "policy");
	uint32_t main = false;

	if (role && !look_up(roles, role, &main))
		return wrong(why, "role", "main or sharer");
	o->main = main;
	/* A VMM that breaks takes its VM along; anybody else can be missed. */
	o->policy = main ? REGMSG_POLICY_FAIL : REGMSG_POLICY_DISABLE;
	if (policy && !look_up(policies, policy, &o->policy))
		return wrong(why, "policy", "ignore, disable or fail");
	if (keyval_bool(kv, "maps", &o->maps) < 0 ||
	    keyval_bool(kv, "required", &o->required) < 0) {
		snprintf(why, PRELOAD_WHY, VARIABLE ": %s", kv->error);
		return -EINVAL;
	}
	return 0;
}

/* A path is compared as a whole, a name with what stands behind the last slash. */
static bool is_this(const char *program)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const char *name;

	if (n <= 0)
		return false;
	exe[n] = '\0';
	name = strrchr(exe, '/');
	return strcmp(strchr(program, '/') || !name ? exe : name + 1, program) == 0;
}

static bool is_ours(const char *library, size_t len)
{
	const char *name = library + len;

	while (name > library && name[-1] != '/')
		name--;
	return (size_t)(library + len - name) >= strlen(OURSELF) &&
	       strncmp(name, OURSELF, strlen(OURSELF)) == 0;
}

/* What LD_PRELOAD would be without us.  The words are parted by spaces or colons. */
static void find_others(void)
{
	static const char head[] = "LD_PRELOAD=";
	const char *at = getenv("LD_PRELOAD");
	size_t used = sizeof(head) - 1;

	others[0] = '\0';
	if (!at || strlen(at) + sizeof(head) > sizeof(others))
		return;
	while (*at) {
		size_t len = strcspn(at, " :");

		if (len && !is_ours(at, len)) {
			if (used > sizeof(head) - 1)
				others[used++] = ':';
			memcpy(others + used, at, len);
			used += len;
		}
		at += len + (at[len] != '\0');
	}
	if (used == sizeof(head) - 1)
		return;
	memcpy(others, head, sizeof(head) - 1);
	others[used] = '\0';
}

/**
 * preload_env_read - what does the environment ask of this program?
 * @o: filled when something is asked
 * @why: PRELOAD_WHY bytes, what is wrong with the text
 *
 * Return: 1; 0 when nothing is asked, or of another program; -EINVAL, -ENOMEM.
 */
int preload_env_read(struct preload_options *o, char *why)
{
	static const char *const known[] = { "register", "name",    "role",	"policy",
					     "maps",	 "program", "required", NULL };
	const char *text = getenv(VARIABLE), *program;
	cleanup_keyval struct keyval kv = { 0 };
	int ret;

	*o = (struct preload_options){ .required = true };
	if (!text || !*text)
		return 0;
	find_others();
	ret = keyval_parse(&kv, text, known, NULL);
	if (ret < 0) {
		snprintf(why, PRELOAD_WHY, VARIABLE ": %s",
			 ret == -ENOMEM ? "no memory" : kv.error);
		return ret;
	}
	program = keyval_get(&kv, "program");
	o->settled = program;
	if (program && !is_this(program))
		return 0;
	ret = take_words(&kv, o, why);
	if (ret == 0)
		ret = take_text(&kv, "register", o->path, sizeof(o->path), why);
	if (ret == 0)
		ret = take_text(&kv, "name", o->name, sizeof(o->name), why);
	return ret < 0 ? ret : 1;
}

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/**
 * preload_env_remove - ask nothing of what is started from here on
 *
 * Neither lock nor heap: it is called in the child of a fork, too.
 */
void preload_env_remove(void)
{
	char **to = environ;

	for (char **from = environ; from && *from; from++) {
		bool preload = begins(*from, "LD_PRELOAD=") && strstr(*from, OURSELF);

		if (begins(*from, VARIABLE "=") || (preload && !others[0]))
			continue;
		*to++ = preload ? others : *from;
	}
	if (to)
		*to = NULL;
}
