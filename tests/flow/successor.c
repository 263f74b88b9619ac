/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a sharer notices of a postcopyd that dies and is followed by another: next to nothing.
 * workers.h has the two.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "core/guard.h"
#include "facts.h"
#include "sys/fd.h"
#include "tap.h"
#include "workers.h"

/* --- facts ------------------------------------------------------------------------------------ */

/* F17: one after the other, so that no bit stands for two of them. */
static void every_flag_of_its_own(void)
{
	struct client *c = client_new();
	uint32_t all = 0;

	for (unsigned bit = 0; bit < 32; bit++) {
		door_set_flags(c, 1u << bit);
		expect(door_flags_of(c) == 0 || door_flags_of(c) == 1u << bit);
		all |= door_flags_of(c);
	}
	door_set_flags(c, all);
	expect(c->main && c->needs_kernel && c->unaware && c->loaded && c->load_failed &&
	       c->told_since && c->ward && c->orphan && c->joining && c->released &&
	       c->kernel_waits && c->registered && c->adrift);
	door_set_flags(c, 0);
	expect(!c->main && !c->adrift && !door_flags_of(c));
	client_free(c);
}

/* F17: what is put comes back, every field of it. */
static void everything_comes_back(void)
{
	struct client *c, before;
	struct scene s;

	get_ready(&s, REGMSG_ROLE_MAIN);
	match(&s);
	c = client(&s);
	c->n_offers = 1;
	fill_client(c);
	s.door->ran = true;
	s.door->next_id = 41;
	door_put_door(s.door);
	door_put(s.door, c);
	before = *c;
	/* That packet is still there: the note is over, and nothing else changes. */
	kill_worker(&s);
	begin_worker(&s);
	c = client(&s);
	expect(c->id == before.id && c->token == before.token && c->pid == s.pid);
	expect(c->state == before.state && c->policy == before.policy && c->main && !c->unaware);
	expect(c->told == before.told && c->told_before == before.told);
	expect(strcmp(c->name, before.name) == 0 && strcmp(c->problem, before.problem) == 0);
	expect(c->n_offers == 1 && strcmp(c->offer[0].name, "ram") == 0 && c->offer[0].file == -1);
	expect(offer_same(&c->offer[0], &before.offer[0]));
	expect(c->n_given == before.n_given && c->n_proven == before.n_proven);
	expect(memcmp(c->given, before.given, sizeof(c->given)) == 0);
	expect(memcmp(c->proven, before.proven, sizeof(c->proven)) == 0);
	expect(door_flags_of(c) == door_flags_of(&before) && c->registered);
	expect(s.door->ran && s.door->next_id == 41 && s.door->is_matched && !s.door->released);
	expect_eq(s.door->n_matched, 1);
	expect_eq(s.door->matched[0].kind, BLOCK_SHARED);
	expect(s.door->matched[0].offer.file >= 0);
	expect_eq(answer(&s, 77), ERESTART);
}

/* F17: it notices nothing, and what was not told is told now. */
static void joined_goes_on(void)
{
	struct scene s;
	union regmsg m;

	serve(&s, REGMSG_ROLE_SHARER);
	restart(&s);
	expect_joined(&s);
	expect_eq(fault_thread.said[fault_thread.n - 1].kind, MESSAGE_ADOPTED);
	expect_eq(told(MESSAGE_GONE), -1);
	tell(&s, SESSION_PAUSED);
	expect_eq(hear(&s, &m), REGMSG_PAUSED);
	tell(&s, SESSION_RUNNING);
	expect_eq(heard(&s, &m), 0);
	s.snapshot.running_told = true;
	tell(&s, SESSION_COMPLETE);
	door_release(s.door);
	await(client(&s)->released);
	restart(&s);
	expect(client(&s)->released && s.door->released);
	tell(&s, SESSION_COMPLETE);
	expect_eq(hear(&s, &m), REGMSG_COMPLETE);
	restart(&s);
	tell(&s, SESSION_COMPLETE);
	expect_eq(heard(&s, &m), 0);
}

/*: between the event and the note that it was told it dies: told twice, and never not. */
static void told_and_not_noted(void)
{
	struct scene s;
	union regmsg m;

	serve(&s, REGMSG_ROLE_SHARER);
	client(&s)->told_before = 0;
	door_put(s.door, client(&s));
	restart(&s);
	tell(&s, SESSION_RUNNING);
	expect_eq(hear(&s, &m), REGMSG_LISTENING);
	tell(&s, SESSION_RUNNING);
	expect_eq(heard(&s, &m), 0);
}

/* F16: what came before anything was told to the fault thread, and after. */
static void a_declaration_goes_on(void)
{
	struct scene s;

	join(&s, REGMSG_ROLE_SHARER);
	/* One that comes late, in the same process: the blocks are known by now. */
	client(&s)->state = CLIENT_DECLARING;
	client(&s)->n_proven = 0;
	door_put(s.door, client(&s));
	restart(&s);
	expect_eq(client(&s)->state, CLIENT_DECLARING);
	expect_eq(told(MESSAGE_JOIN), -1);
	say_plain(&s, REGMSG_READY, 4);
	expect_eq(answer(&s, 4), 0);
	expect_eq(client(&s)->state, CLIENT_READY);
}

/*: each has one answer, whoever gives it. */
static void a_request_that_was_read(void)
{
	struct scene s;
	union regmsg m;
	size_t len;

	serve(&s, REGMSG_ROLE_SHARER);
	len = regmsg_init(&m, REGMSG_WANT, 9);
	m.want.klass = REGMSG_CLASS_DEMAND;
	m.want.length = 4096;
	strcpy(m.want.name, "ram");
	say(&s, &m, len, -1);
	read_and_die(&s);
	expect_eq(hear(&s, &m), REGMSG_RESULT);
	expect(m.head.serial == 9 && m.result.error == ERESTART);
	expect(strstr(m.result.text, "restarted") && strstr(m.result.text, "ask again"));
	for (int i = 0; i < 5; i++)
		turn();
	expect_eq(heard(&s, &m), 0);
	/* It stays one that was answered. */
	restart(&s);
	expect_eq(heard(&s, &m), 0);
}

/* The same packet, noted and not taken: heard as if nothing had been. */
static void a_request_that_was_not_read(void)
{
	struct scene s;
	union regmsg m;

	join(&s, REGMSG_ROLE_SHARER);
	client(&s)->state = CLIENT_DECLARING;
	door_put(s.door, client(&s));
	say_plain(&s, REGMSG_READY, 9);
	door_note_request(peer(&s));
	restart(&s);
	expect_eq(answer(&s, 9), 0);
	for (int i = 0; i < 5; i++)
		turn();
	expect_eq(heard(&s, &m), 0);
}

/* What was said while nobody was there. */
static void said_to_nobody(void)
{
	struct scene s;

	serve(&s, REGMSG_ROLE_SHARER);
	kill_worker(&s);
	say_plain(&s, REGMSG_LEAVE, 5);
	unmap(&s);
	begin_worker(&s);
	expect_eq(answer(&s, 5), 0);
	expect_eq(first(MESSAGE_GONE)->gone.how, SHARER_LEFT);
}

/* The answer of a request whose effect the record has is that effect. */
static void done_and_not_answered(void)
{
	struct scene s;
	union regmsg m;

	serve(&s, REGMSG_ROLE_SHARER);
	client(&s)->state = CLIENT_READY;
	client(&s)->noted = 12;
	client(&s)->noted_type = REGMSG_READY;
	door_put(s.door, client(&s));
	restart(&s);
	expect_eq(answer(&s, 12), 0);
	/* It has left, and was not told so: it is no sharer any more. */
	client(&s)->state = CLIENT_ENDED;
	client(&s)->noted = 13;
	client(&s)->noted_type = REGMSG_LEAVE;
	door_put(s.door, client(&s));
	restart(&s);
	expect_eq(answer(&s, 13), 0);
	expect_eq(told(MESSAGE_JOIN), -1);
	shutdown(s.sock, SHUT_RDWR);
	await(s.door->clients->len == 0);
	expect(!kept(&s.vault, "uffd-1") && !kept(&s.vault, "sock-1") && !kept(&s.vault, "pidfd-1"));
	(void)m;
}

/* The VM may run is what the main sharer waits for. */
static void loaded_is_not_lost(void)
{
	struct scene s;
	union regmsg m;

	serve(&s, REGMSG_ROLE_MAIN);
	s.snapshot.package_fd = s.file;
	s.snapshot.package_bytes = s.snapshot.package_device_bytes = LENGTH;
	tell(&s, SESSION_LOADING);
	expect_eq(hear(&s, &m), REGMSG_PACKAGE);
	say_plain(&s, REGMSG_LOADED, 4);
	read_and_die(&s);
	expect(client(&s)->loaded);
	expect_eq(told(MESSAGE_LOADED), -1);
	expect(!door_go_on(s.door));
	expect(told(MESSAGE_LOADED) > told(MESSAGE_ADOPTED));
	/* It was taken, and the fault thread may not have heard of it. */
	restart(&s);
	expect(!door_go_on(s.door));
	expect(told(MESSAGE_LOADED) >= 0);
	s.snapshot.running_told = true;
	tell(&s, SESSION_RUNNING);
	expect_eq(hear(&s, &m), REGMSG_RUNNING);
	restart(&s);
	expect(!door_go_on(s.door) && told(MESSAGE_LOADED) < 0 && s.door->ran);
}

static void load_failure_is_not_lost(void)
{
	struct scene s;
	union regmsg m;

	serve(&s, REGMSG_ROLE_MAIN);
	regmsg_text(&m, REGMSG_LOAD_FAILED, 4, EIO, "no such device");
	say(&s, &m, m.head.size, -1);
	read_and_die(&s);
	expect(strstr(first(MESSAGE_STOP)->stop.reason, "could not load"));
	restart(&s);
	expect(told(MESSAGE_STOP) >= 0);
}

/* F17: it dies when nobody looks. */
static void dead_meanwhile(void)
{
	struct scene s;

	serve(&s, REGMSG_ROLE_SHARER);
	kill_worker(&s);
	kill(s.pid, SIGKILL);
	expect_eq(waitpid(s.pid, NULL, 0), s.pid);
	begin_worker(&s);
	expect_eq(first(MESSAGE_GONE)->gone.how, SHARER_DEAD);
	expect(told(MESSAGE_JOIN) < told(MESSAGE_GONE));
	expect(told(MESSAGE_GONE) < told(MESSAGE_ADOPTED));
	expect_eq(s.door->clients->len, 0);
	expect(!kept(&s.vault, "uffd-1"));
}

/* It hung up, and lives: its userfaultfd stays open (O11). */
static void hung_up_meanwhile(void)
{
	struct scene s;

	serve(&s, REGMSG_ROLE_SHARER);
	kill_worker(&s);
	close_fd(&s.sock);
	begin_worker(&s);
	expect_eq(told(MESSAGE_GONE), -1);
	await(told(MESSAGE_GONE) >= 0);
	expect_eq(first(MESSAGE_GONE)->gone.how, SHARER_DISABLED);
	expect(kept(&s.vault, "uffd-1") && !kept(&s.vault, "sock-1"));
	/* Whether it was told makes no difference. */
	restart(&s);
	expect_joined(&s);
	await(told(MESSAGE_GONE) >= 0);
	expect_eq(first(MESSAGE_GONE)->gone.how, SHARER_DISABLED);
	kill(s.pid, SIGKILL);
	await(s.door->clients->len == 0);
	expect(!kept(&s.vault, "uffd-1"));
}

/* F16: it was being proven: nothing was answered, so it is where it was before. */
static void proving_is_asked_again(void)
{
	struct scene s;

	join(&s, REGMSG_ROLE_SHARER);
	client(&s)->state = CLIENT_PROVING;
	client(&s)->n_proven = 0;
	client(&s)->noted = 20;
	client(&s)->noted_type = REGMSG_READY;
	door_put(s.door, client(&s));
	restart(&s);
	expect_eq(answer(&s, 20), ERESTART);
	expect_eq(client(&s)->state, CLIENT_DECLARING);
	say_plain(&s, REGMSG_READY, 21);
	expect_eq(answer(&s, 21), 0);
	expect_eq(client(&s)->state, CLIENT_READY);
}

/* Before there is a source: its connection ends, its userfaultfd does not. */
static void declared_too_early(void)
{
	struct scene s;
	union regmsg m;

	get_ready(&s, REGMSG_ROLE_SHARER);
	restart(&s);
	expect_eq(told(MESSAGE_JOIN), -1);
	expect_eq(hear(&s, &m), -1);
	await(!kept(&s.vault, "sock-1"));
	expect_eq(client(&s)->state, CLIENT_REFUSED);
	expect(kept(&s.vault, "uffd-1"));
	expect(!door_has(s.door, "one"));
	restart(&s);
	expect(kept(&s.vault, "uffd-1"));
	kill(s.pid, SIGKILL);
	await(s.door->clients->len == 0);
	expect(!kept(&s.vault, "uffd-1") && !kept(&s.vault, "pidfd-1"));
}

/* One that knows nothing of us has declared nothing, so nothing is lost. */
static void unaware_stays(void)
{
	struct scene s;
	char why[512];
	union regmsg m;

	enter(&s, REGMSG_ROLE_SHARER, REGMSG_HELLO_UNAWARE);
	restart(&s);
	expect_eq(client(&s)->state, CLIENT_READY);
	expect(client(&s)->unaware && client(&s)->uffd >= 0);
	expect_eq(heard(&s, &m), 0);
	expect(door_has(s.door, "one"));
	expect_eq(door_join(s.door, why), 1);
}

/* The hello itself. */
static void hello_that_was_read(void)
{
	cleanup_fd int uffd = -1;
	struct scene s;
	union regmsg m;
	size_t len;

	uffd = open_scene(&s);
	await(s.door->clients->len == 1);
	len = hello(&m, REGMSG_ROLE_SHARER, 0);
	say(&s, &m, len, uffd);
	read_and_die(&s);
	expect_eq(hear(&s, &m), REGMSG_REFUSED);
	expect(m.head.serial == 1 && m.text.error == ERESTART);
	expect_eq(hear(&s, &m), -1);
	await(s.door->clients->len == 0);
	expect_eq(s.vault.n, 0);
}

/* It was taken, and its answer not sent. */
static void hello_that_was_taken(void)
{
	struct scene s;
	union regmsg m;
	uint64_t token;

	enter(&s, REGMSG_ROLE_SHARER, 0);
	token = client(&s)->token;
	client(&s)->noted = 1;
	client(&s)->noted_type = REGMSG_HELLO;
	door_put(s.door, client(&s));
	restart(&s);
	expect_eq(hear(&s, &m), REGMSG_WELCOME);
	expect(m.head.serial == 1 && m.welcome.token == token && m.welcome.sharer == 1);
	say_block(&s, 2);
	expect_eq(answer(&s, 2), 0);
}

/* Who has connected and said nothing says it to the next one. */
static void silent_is_heard(void)
{
	cleanup_fd int uffd = -1;
	struct scene s;
	union regmsg m;
	size_t len;

	uffd = open_scene(&s);
	await(s.door->clients->len == 1);
	restart(&s);
	len = hello(&m, REGMSG_ROLE_SHARER, 0);
	say(&s, &m, len, uffd);
	expect_eq(hear(&s, &m), REGMSG_WELCOME);
	expect_eq(m.welcome.sharer, 1);
}

/* One that the fault thread put aside stays so. */
static void disabled_stays(void)
{
	struct scene s;
	union regmsg m;

	serve(&s, REGMSG_ROLE_SHARER);
	s.snapshot.state = SESSION_RUNNING;
	s.snapshot.sharer[0].state = SHARER_DISABLED;
	strcpy(s.snapshot.sharer[0].reason, "it is broken");
	door_tell(s.door, &s.snapshot);
	expect_eq(hear(&s, &m), REGMSG_DISABLED);
	restart(&s);
	expect_eq(first(MESSAGE_GONE)->gone.how, SHARER_DISABLED);
	expect(strcmp(first(MESSAGE_GONE)->gone.reason, "it is broken") == 0);
	expect(kept(&s.vault, "uffd-1"));
}

/* the connection of a ward ends with us; its memory is served on until nobody has it. */
static void ward_becomes_an_orphan(void)
{
	static const struct door_ward_ops ops;
	struct door_ward_about about = { .name = "back-end", .policy = REGMSG_POLICY_IGNORE };
	struct door_ward *w;
	struct scene s;
	const char *why;
	char text[512];
	int uffd;

	uffd = open_scene(&s);
	await(s.door->clients->len == 1);
	close_fd(&s.sock);
	await(s.door->clients->len == 0);
	about.pid = s.pid;
	about.uffd = uffd;
	w = door_ward_new(s.door, &about, &ops, NULL, &why);
	expect(w && client(&s)->id == 2);
	s.door->matched[0].offer.file = -1;
	/* As if it had been proven and handed over, of a block that a VMM had declared. */
	s.door->is_matched = true;
	s.door->n_matched = 1;
	s.door->matched[0] = (struct matched){ .kind = BLOCK_SHARED };
	s.door->matched[0].offer =
		(struct offer){ .name = "ram", .length = LENGTH, .page_size = 4096, .file = s.file };
	expect_eq(mem_identify(s.file, &s.door->matched[0].offer.identity), 0);
	expect_eq(door_keep_blocks(s.door), 0);
	client(&s)->state = CLIENT_READY;
	await(door_join(s.door, text) == 0);
	restart(&s);
	expect(client(&s)->orphan && !client(&s)->ward);
	expect_joined(&s);
	unmap(&s);
	await(s.door->clients->len == 0);
	expect_eq(first(MESSAGE_GONE)->gone.how, SHARER_LEFT);
	expect(!kept(&s.vault, "uffd-2"));
}

/* Nothing is left behind by any number of them. */
static void descriptors_stay_the_same(void)
{
	unsigned before = 0, in_vault = 0;
	struct scene s;
	union regmsg m;

	serve(&s, REGMSG_ROLE_SHARER);
	for (int i = 0; i < 25; i++) {
		restart(&s);
		tell(&s, SESSION_RUNNING);
		turn();
		if (i == 4) {
			before = count_fds();
			in_vault = s.vault.n;
		}
	}
	expect_eq(count_fds(), before);
	expect_eq(s.vault.n, in_vault);
	expect_eq(in_vault, 4);
	expect_eq(heard(&s, &m), 0);
}

/* F16: each call of a hundred is answered once, wherever the worker dies in between. */
static void a_hundred_requests(void)
{
	struct scene s;
	union regmsg m;
	size_t len;

	serve(&s, REGMSG_ROLE_SHARER);
	for (uint32_t serial = 100; serial < 200; serial++) {
		len = regmsg_init(&m, REGMSG_WANT, serial);
		m.want.klass = REGMSG_CLASS_PREFETCH;
		m.want.length = 4096;
		strcpy(m.want.name, "ram");
		say(&s, &m, len, -1);
		if (serial % 4 == 0)
			read_and_die(&s);
		else if (serial % 4 == 1)
			restart(&s);
		fault_thread.n = 0;
		expect_eq(hear(&s, &m), REGMSG_RESULT);
		expect_eq(m.head.serial, serial);
		expect_eq(m.result.error, serial % 4 == 0 ? ERESTART : 0);
		if (serial % 4 == 2)
			restart(&s);
		expect_eq(heard(&s, &m), 0);
	}
}

/* What no process of ours wrote is not believed. */
static void bad_records(void)
{
	g_autofree struct record_client *r = g_new0(struct record_client, 1);
	GError *error = NULL;
	struct scene s;
	ssize_t n;

	serve(&s, REGMSG_ROLE_SHARER);
	kill_worker(&s);
	n = record_get(s.record, RECORD_CLIENT, 0, r, sizeof(*r));
	expect_eq(n, door_record_size(0));
	r->n_proven = SHARER_MAPPINGS + 1;
	record_put(s.record, RECORD_CLIENT, 0, r, (size_t)n);
	expect_eq(try_worker(&s, &error), -EBADMSG);
	expect(error && strstr(error->message, "earlier postcopyd"));
	kill_worker(&s);
	r->n_proven = 1;
	record_put(s.record, RECORD_CLIENT, 0, r, (size_t)n);
	vault_drop(&s.vault, "offer-0");
	g_clear_error(&error);
	expect_eq(try_worker(&s, &error), -ENOENT);
	expect(error && strstr(error->message, "ram"));
}

static const struct fact facts[] = {
	{ "F17 the record of a client: every flag", every_flag_of_its_own },
	{ "F17 the record of a client: every field comes back", everything_comes_back },
	{ "F17 a sharer that was served goes on", joined_goes_on },
	{ "an event is told twice rather than not at all", told_and_not_noted },
	{ "F16 a declaration goes on", a_declaration_goes_on },
	{ "a request that was read is answered", a_request_that_was_read },
	{ "a request that was noted and not read is heard", a_request_that_was_not_read },
	{ "a request that was sent to nobody is heard", said_to_nobody },
	{ "a request that was done is answered so", done_and_not_answered },
	{ "that the device state is loaded is not lost", loaded_is_not_lost },
	{ "that it cannot be loaded is not lost", load_failure_is_not_lost },
	{ "F17 a sharer dies meanwhile", dead_meanwhile },
	{ "F17 O11 a sharer hangs up meanwhile", hung_up_meanwhile },
	{ "F16 a proof is asked for again", proving_is_asked_again },
	{ "F16 O11 what was declared before there was a source", declared_too_early },
	{ "F15 a program that is unaware of us stays", unaware_stays },
	{ "F16 a hello that was read", hello_that_was_read },
	{ "F16 a hello that was taken", hello_that_was_taken },
	{ "F16 a connection on which nothing was said", silent_is_heard },
	{ "F17 a sharer that was put aside stays so", disabled_stays },
	{ "a back-end is served on", ward_becomes_an_orphan },
	{ "F17 descriptors stay the same", descriptors_stay_the_same },
	{ "F16 a hundred requests, each answered once", a_hundred_requests },
	{ "F17 a record that makes no sense", bad_records },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
