/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sharer.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "wire/keyval.h"

static const char usage[] =
	"Usage: sharer --socket PATH --name NAME --block NAME,size=N[,...]... [OPTION]...\n"
	"  --role main|sharer        default: main\n"
	"  --policy ignore|disable|fail\n"
	"  --block NAME,size=N[,memfd=create|PATH][,offset=N][,private=on][,hugetlb=on[,reserve=off]][,alias=on]\n"
	"                            guest memory; made here unless memfd names a file;\n"
	"                            alias: mapped twice, and touched at either address\n"
	"  --threads N               that touch the memory; default 1, 0: none\n"
	"  --order random|linear     default: random, by --seed S\n"
	"  --touch read|write        default: read; a write changes nothing\n"
	"  --touch-from listening|running   default: running (a sharer: listening)\n"
	"  --hold FILE               touch nothing before FILE exists\n"
	"  --want BLOCK,offset=N,length=N[,class=demand|dma|prefetch]   asked for at LISTENING\n"
	"  --self-register           register the memory here, not in the daemon\n"
	"  --user-faults-only        a userfaultfd for user-space accesses only\n"
	"  --uffd good|blocking|raw|user-only|pipe|events   what is handed over\n"
	"  --loaded-after MS         from PACKAGE to \"loaded\"\n"
	"  --load-fail TEXT          say that instead of \"loaded\"\n"
	"  --leave-after N           unmap and leave after N touches\n"
	"  --digest FILE             the digests go there too\n"
	"  --console                 obey lines on stdin: touch store poke give outside blocking\n"
	"                            nonblocking unmap map leave hangup (sharer_console.c)\n"
	"  --exit-after-complete     exit 0 then; 2 when it cannot come any more\n";

enum {
	OPT_SOCKET = 256,
	OPT_NAME,
	OPT_ROLE,
	OPT_POLICY,
	OPT_BLOCK,
	OPT_THREADS,
	OPT_ORDER,
	OPT_SEED,
	OPT_TOUCH,
	OPT_TOUCH_FROM,
	OPT_HOLD,
	OPT_WANT,
	OPT_SELF,
	OPT_USER,
	OPT_UFFD,
	OPT_LOADED,
	OPT_LOAD_FAIL,
	OPT_LEAVE,
	OPT_DIGEST,
	OPT_EXIT,
	OPT_CONSOLE,
	OPT_HELP
};

static const struct option longs[] = {
	{ "socket", 1, NULL, OPT_SOCKET },	 { "name", 1, NULL, OPT_NAME },
	{ "role", 1, NULL, OPT_ROLE },		 { "policy", 1, NULL, OPT_POLICY },
	{ "block", 1, NULL, OPT_BLOCK },	 { "threads", 1, NULL, OPT_THREADS },
	{ "order", 1, NULL, OPT_ORDER },	 { "seed", 1, NULL, OPT_SEED },
	{ "touch", 1, NULL, OPT_TOUCH },	 { "touch-from", 1, NULL, OPT_TOUCH_FROM },
	{ "hold", 1, NULL, OPT_HOLD },		 { "want", 1, NULL, OPT_WANT },
	{ "self-register", 0, NULL, OPT_SELF },	 { "user-faults-only", 0, NULL, OPT_USER },
	{ "uffd", 1, NULL, OPT_UFFD },		 { "loaded-after", 1, NULL, OPT_LOADED },
	{ "load-fail", 1, NULL, OPT_LOAD_FAIL }, { "leave-after", 1, NULL, OPT_LEAVE },
	{ "digest", 1, NULL, OPT_DIGEST },	 { "exit-after-complete", 0, NULL, OPT_EXIT },
	{ "console", 0, NULL, OPT_CONSOLE },	 { "help", 0, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static int bad(const char *what, const char *value, const char *want)
{
	fprintf(stderr, "sharer: %s '%s': expected %s\n", what, value, want);
	return -EINVAL;
}

struct word {
	const char *word;
	int value;
};

static int read_word(const struct word *words, const char *text, const char *option, int *out)
{
	for (; words->word; words++) {
		if (strcmp(words->word, text) == 0) {
			*out = words->value;
			return 0;
		}
	}
	return bad(option, text, "one of the words in --help");
}

static int copy(char *out, size_t room, const char *text, const char *what)
{
	if (strlen(text) >= room)
		return bad(what, text, "a shorter one");
	strcpy(out, text);
	return 0;
}

static int complain(const struct keyval *kv)
{
	fprintf(stderr, "sharer: %s\n", kv->error);
	return -EINVAL;
}

static int read_block(struct sharer_options *o, const char *text)
{
	static const char *const keys[] = { "name",    "size",	  "memfd", "offset",
					    "private", "hugetlb", "reserve", "alias", NULL };
	struct sharer_block *b = &o->block[o->n_blocks];
	struct keyval kv cleanup_keyval;
	const char *path;
	int err;

	b->reserve = true;
	if (o->n_blocks == SHARER_BLOCKS)
		return bad("--block", text, "fewer blocks");
	if (keyval_parse(&kv, text, keys, "name") < 0 ||
	    keyval_size(&kv, "size", 4096, UINT64_MAX / 4, &b->size) < 0 ||
	    keyval_size(&kv, "offset", 0, UINT64_MAX / 4, &b->offset) < 0 ||
	    keyval_bool(&kv, "private", &b->private) < 0 ||
	    keyval_bool(&kv, "hugetlb", &b->hugetlb) < 0 ||
	    keyval_bool(&kv, "reserve", &b->reserve) < 0 ||
	    keyval_bool(&kv, "alias", &b->aliased) < 0)
		return complain(&kv);
	path = keyval_get(&kv, "memfd");
	if (!keyval_get(&kv, "name") || !b->size || (b->private && (path || b->aliased)))
		return bad("--block", text, "a name, a size, and no file for private memory");
	err = copy(b->name, sizeof(b->name), keyval_get(&kv, "name"), "block name");
	if (!err && path && strcmp(path, "create"))
		err = copy(b->path, sizeof(b->path), path, "path");
	if (!err)
		o->n_blocks++;
	return err;
}

static int read_want(struct sharer_options *o, const char *text)
{
	static const char *const keys[] = { "block", "offset", "length", "class", NULL };
	static const struct word classes[] = { { "demand", POSTCOPY_CLASS_DEMAND },
					       { "dma", POSTCOPY_CLASS_DMA },
					       { "prefetch", POSTCOPY_CLASS_PREFETCH },
					       { NULL, 0 } };
	struct sharer_want *w = &o->want[o->n_wants];
	int klass = POSTCOPY_CLASS_PREFETCH;
	struct keyval kv cleanup_keyval;
	int err = 0;

	if (o->n_wants == SHARER_WANTS)
		return bad("--want", text, "fewer of them");
	if (keyval_parse(&kv, text, keys, "block") < 0 ||
	    keyval_size(&kv, "offset", 0, UINT64_MAX, &w->offset) < 0 ||
	    keyval_size(&kv, "length", 1, UINT64_MAX, &w->length) < 0)
		return complain(&kv);
	if (!keyval_get(&kv, "block"))
		return bad("--want", text, "the name of a block");
	if (keyval_get(&kv, "class"))
		err = read_word(classes, keyval_get(&kv, "class"), "class", &klass);
	w->klass = (enum postcopy_class)klass;
	if (!err)
		err = copy(w->block, sizeof(w->block), keyval_get(&kv, "block"), "block name");
	if (!err)
		o->n_wants++;
	return err;
}

static int read_number(const char *option, const char *text, uint64_t max, uint64_t *out)
{
	if (keyval_read_size(text, out) < 0 || *out > max)
		return bad(option, text, "a number in range");
	return 0;
}

static int take_word(struct sharer_options *o, int opt, const char *arg)
{
	static const struct word roles[] = { { "main", POSTCOPY_ROLE_MAIN },
					     { "sharer", POSTCOPY_ROLE_SHARER },
					     { NULL, 0 } };
	static const struct word policies[] = { { "ignore", POSTCOPY_POLICY_IGNORE },
						{ "disable", POSTCOPY_POLICY_DISABLE },
						{ "fail", POSTCOPY_POLICY_FAIL },
						{ NULL, 0 } };
	static const struct word orders[] = { { "random", 0 }, { "linear", 1 }, { NULL, 0 } };
	static const struct word touches[] = { { "read", 0 }, { "write", 1 }, { NULL, 0 } };
	static const struct word froms[] = { { "running", 0 }, { "listening", 1 }, { NULL, 0 } };
	static const struct word uffds[] = {
		{ "good", SHARER_UFFD_GOOD }, { "blocking", SHARER_UFFD_BLOCKING },
		{ "raw", SHARER_UFFD_RAW },   { "user-only", SHARER_UFFD_USER_ONLY },
		{ "pipe", SHARER_UFFD_PIPE }, { "events", SHARER_UFFD_EVENTS }, { NULL, 0 }
	};
	int v = 0, err;

	switch (opt) {
	case OPT_ROLE:
		err = read_word(roles, arg, "--role", &v);
		o->role = (enum postcopy_role)v;
		return err;
	case OPT_POLICY:
		err = read_word(policies, arg, "--policy", &v);
		o->policy = (enum postcopy_policy)v;
		return err;
	case OPT_UFFD:
		err = read_word(uffds, arg, "--uffd", &v);
		o->uffd = (enum sharer_uffd)v;
		return err;
	case OPT_ORDER:
		err = read_word(orders, arg, "--order", &v);
		o->linear = v;
		return err;
	case OPT_TOUCH:
		err = read_word(touches, arg, "--touch", &v);
		o->write = v;
		return err;
	default:
		err = read_word(froms, arg, "--touch-from", &v);
		o->touch_from_listening = v;
		return err;
	}
}

static int take_number(struct sharer_options *o, int opt, const char *arg)
{
	uint64_t v = 0;
	int err;

	switch (opt) {
	case OPT_THREADS:
		err = read_number("--threads", arg, SHARER_THREADS, &v);
		o->threads = (unsigned)v;
		return err;
	case OPT_LOADED:
		err = read_number("--loaded-after", arg, 3600000, &v);
		o->loaded_after_ms = (unsigned)v;
		return err;
	case OPT_SEED:
		return read_number("--seed", arg, UINT64_MAX, &o->seed);
	default:
		return read_number("--leave-after", arg, UINT64_MAX, &o->leave_after);
	}
}

static int take(struct sharer_options *o, int opt, const char *arg)
{
	switch (opt) {
	case OPT_SOCKET:
		o->socket = arg;
		return 0;
	case OPT_NAME:
		o->name = arg;
		return 0;
	case OPT_HOLD:
		o->hold = arg;
		return 0;
	case OPT_LOAD_FAIL:
		o->load_fail = arg;
		return 0;
	case OPT_DIGEST:
		o->digest = arg;
		return 0;
	case OPT_SELF:
		o->self_register = true;
		return 0;
	case OPT_USER:
		o->user_faults_only = true;
		return 0;
	case OPT_CONSOLE:
		o->console = true;
		return 0;
	case OPT_EXIT:
		o->exit_after_complete = true;
		return 0;
	case OPT_BLOCK:
		return read_block(o, arg);
	case OPT_WANT:
		return read_want(o, arg);
	case OPT_THREADS:
	case OPT_LOADED:
	case OPT_SEED:
	case OPT_LEAVE:
		return take_number(o, opt, arg);
	case OPT_HELP:
		fputs(usage, stdout);
		return 1;
	case '?':
		return -EINVAL;
	default:
		return take_word(o, opt, arg);
	}
}

int sharer_options_parse(struct sharer_options *o, int argc, char **argv)
{
	int opt, err = 0;

	memset(o, 0, sizeof(*o));
	o->role = POSTCOPY_ROLE_MAIN;
	o->threads = 1;
	o->seed = 1;
	while (!err && (opt = getopt_long(argc, argv, "", longs, NULL)) != -1)
		err = take(o, opt, optarg);
	if (err)
		return err;
	if (optind < argc)
		return bad("argument", argv[optind], "options only");
	if (!o->socket || !o->name || !o->n_blocks) {
		fputs("sharer: --socket, --name and --block are needed\n", stderr);
		return -EINVAL;
	}
	if (o->role == POSTCOPY_ROLE_SHARER)
		o->touch_from_listening = true;
	return 0;
}
