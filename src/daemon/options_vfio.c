/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --vfio: a device of VFIO at this host; --dma-map: what it reaches, when nobody else says it.
 */
#include "config.h"
#include "daemon/options_parts.h"
#include <string.h>
#include "core/gate.h"
#include "core/guard.h"
#include "wire/devstate.h"
#include "wire/keyval.h"

#define DEADLINE_MAX_MS	    86400000
#define DEADLINE_DEFAULT_MS 5000
#define BLOCK_NAME_MAX	    255

static bool is_plain(const char *text)
{
	for (; *text; text++)
		if (!g_ascii_isgraph(*text))
			return false;
	return true;
}

/* As device state calls it, and as it stands in names of blockers and in tables. */
static bool read_id(struct keyval *kv, const char *key, char **out, GError **error)
{
	const char *id = keyval_get(kv, key);

	if (!id || *id == '\0' || strlen(id) >= DEVSTATE_NAME || !is_plain(id))
		return options_fail(
			error,
			"%s=ID is missing, or not a device's name (1 to %d visible characters)",
			key, DEVSTATE_NAME - 1);
	*out = g_strdup(id);
	return true;
}

static bool read_place(struct keyval *kv, struct options_vfio *v, GError **error)
{
	const char *user = keyval_get(kv, "vfio-user"), *sysfs = keyval_get(kv, "sysfs");

	if (!user == !sysfs)
		return options_fail(error, "give one of sysfs=PATH and vfio-user=PATH");
	v->user = user;
	v->path = g_strdup(user ? user : sysfs);
	if (user && !options_check_socket_path(user, error)) {
		g_prefix_error(error, "vfio-user: ");
		return false;
	}
	return *v->path || options_fail(error, "sysfs: the value is empty");
}

static bool read_dma(struct keyval *kv, struct options_vfio *v, GError **error)
{
	static const char *const words[OPTIONS_DMA_WAYS] = { "gate", "messages", "sharer" };
	const char *text = keyval_get(kv, "dma");

	for (unsigned i = 0; text && i < ARRAY_LEN(words); i++)
		if (strcmp(text, words[i]) == 0) {
			v->dma = (enum options_dma)i;
			text = NULL;
		}
	if (text)
		return options_fail(error, "dma: '%s' is none of gate, messages, sharer", text);
	if (v->dma != OPTIONS_DMA_GATE && !v->user)
		return options_fail(
			error,
			"dma: what the kernel's devices reach is pinned: only gate goes with sysfs");
	return true;
}

static bool read_vfio(struct keyval *kv, struct options_vfio *v, GError **error)
{
	uint64_t deadline = DEADLINE_DEFAULT_MS;

	if (!read_id(kv, "id", &v->id, error) || !read_place(kv, v, error) ||
	    !read_dma(kv, v, error))
		return false;
	if (keyval_bool(kv, "mandatory", &v->mandatory) < 0 ||
	    keyval_number(kv, "deadline", 1, DEADLINE_MAX_MS, &deadline) < 0)
		return options_fail(error, "%s", kv->error);
	v->deadline_ms = (unsigned)deadline;
	return true;
}

static void free_vfio(struct options_vfio *v)
{
	g_free(v->id);
	g_free(v->path);
	g_free(v);
}

/**
 * options_new_vfio - no devices yet; g_ptr_array_unref() frees all
 */
GPtrArray *options_new_vfio(void)
{
	return g_ptr_array_new_with_free_func((GDestroyNotify)free_vfio);
}

/**
 * options_find_vfio - the device of that name, or NULL
 */
const struct options_vfio *options_find_vfio(const GPtrArray *all, const char *id)
{
	for (unsigned i = 0; i < all->len; i++) {
		const struct options_vfio *v = g_ptr_array_index(all, i);

		if (strcmp(v->id, id) == 0)
			return v;
	}
	return NULL;
}

static bool is_new(const GPtrArray *all, const struct options_vfio *v, GError **error)
{
	if (options_find_vfio(all, v->id))
		return options_fail(error, "two devices are named %s", v->id);
	for (unsigned i = 0; i < all->len; i++) {
		const struct options_vfio *other = g_ptr_array_index(all, i);

		if (strcmp(other->path, v->path) == 0)
			return options_fail(error, "%s is %s already", v->path, other->id);
	}
	return all->len < OPTIONS_VFIO_MAX ||
	       options_fail(error, "more than %d devices", OPTIONS_VFIO_MAX);
}

/**
 * options_add_vfio - the value of --vfio
 */
bool options_add_vfio(GPtrArray *all, const char *text, GError **error)
{
	static const char *const known[] = { "id",	 "sysfs", "vfio-user", "mandatory",
					     "deadline", "dma",	  NULL };
	struct options_vfio *v = g_new0(struct options_vfio, 1);
	struct keyval kv cleanup_keyval;
	bool ok = false;

	if (keyval_parse(&kv, text, known, NULL) < 0)
		options_fail(error, "%s", kv.error);
	else
		ok = read_vfio(&kv, v, error) && is_new(all, v, error);
	if (ok)
		g_ptr_array_add(all, v);
	else
		free_vfio(v);
	return ok;
}

/* --- --dma-map -------------------------------------------------------------------------------- */

static void free_dma_map(struct options_dma_map *m)
{
	g_free(m->device);
	g_free(m->block);
	g_free(m);
}

/**
 * options_new_dma_map - no ranges yet; g_ptr_array_unref() frees all
 */
GPtrArray *options_new_dma_map(void)
{
	return g_ptr_array_new_with_free_func((GDestroyNotify)free_dma_map);
}

static bool read_pages(struct keyval *kv, const char *key, uint64_t min, uint64_t *out,
		       GError **error)
{
	if (keyval_size(kv, key, min, INT64_MAX, out) < 0)
		return options_fail(error, "%s", kv->error);
	return *out % GATE_PAGE == 0 ||
	       options_fail(error, "%s: not a multiple of %d", key, GATE_PAGE);
}

static bool read_dma_map(struct keyval *kv, struct options_dma_map *m, GError **error)
{
	const char *block = keyval_get(kv, "block");

	if (!read_id(kv, "device", &m->device, error))
		return false;
	if (!block || *block == '\0' || strlen(block) > BLOCK_NAME_MAX)
		return options_fail(error, "block=NAME is missing, or no block's name");
	m->block = g_strdup(block);
	if (!keyval_get(kv, "iova"))
		return options_fail(error, "iova=ADDRESS is missing");
	if (!read_pages(kv, "iova", 0, &m->iova, error) ||
	    !read_pages(kv, "offset", 0, &m->offset, error) ||
	    !read_pages(kv, "length", GATE_PAGE, &m->length, error))
		return false;
	if (keyval_bool(kv, "coherent", &m->coherent) < 0)
		return options_fail(error, "%s", kv->error);
	return true;
}

/**
 * options_add_dma_map - the value of --dma-map
 */
bool options_add_dma_map(GPtrArray *all, const char *text, GError **error)
{
	static const char *const known[] = { "device", "iova",	   "block", "offset",
					     "length", "coherent", NULL };
	struct options_dma_map *m = g_new0(struct options_dma_map, 1);
	struct keyval kv cleanup_keyval;
	bool ok = false;

	if (keyval_parse(&kv, text, known, NULL) < 0)
		options_fail(error, "%s", kv.error);
	else
		ok = read_dma_map(&kv, m, error);
	if (ok)
		g_ptr_array_add(all, m);
	else
		free_dma_map(m);
	return ok;
}

static bool has_range(const GPtrArray *maps, const char *id)
{
	for (unsigned i = 0; i < maps->len; i++)
		if (strcmp(((struct options_dma_map *)g_ptr_array_index(maps, i))->device, id) == 0)
			return true;
	return false;
}

/**
 * options_check_dma_map - does each range belong to a device, and has each device that needs some?
 */
bool options_check_dma_map(const GPtrArray *vfio, const GPtrArray *maps, GError **error)
{
	for (unsigned i = 0; i < maps->len; i++) {
		const struct options_dma_map *m = g_ptr_array_index(maps, i);

		if (!options_find_vfio(vfio, m->device))
			return options_fail(error, "--dma-map: there is no --vfio id=%s",
					    m->device);
	}
	for (unsigned i = 0; i < vfio->len; i++) {
		const struct options_vfio *v = g_ptr_array_index(vfio, i);

		if (v->dma != OPTIONS_DMA_GATE && !has_range(maps, v->id))
			return options_fail(error, "--vfio: %s has to be told by --dma-map what it "
					    "reaches", v->id);
	}
	return true;
}
