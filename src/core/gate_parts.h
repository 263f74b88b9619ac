/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CORE_GATE_PARTS_H
#define PC_CORE_GATE_PARTS_H
/*
 * What gate.c and gate_index.c share: ranges by their device addresses, and by their pages.
 */
#include "core/gate.h"

#define GATE_NONE UINT32_MAX

/* Position in by_iova of the first range that ends behind @iova; g->n: none does. */
uint32_t gate_index_iova(const struct gate *g, uint64_t iova);
void gate_index_add(struct gate *g, uint32_t index);
void gate_index_remove(struct gate *g, uint32_t index);
/*
 * The ranges that have some of these pages, one after the other: begin with @after 0.  The position
 * behind the one found, which is in *@index; 0: no more.
 */
uint32_t gate_index_pages(struct gate *g, uint64_t page, uint64_t n, uint32_t after,
			  uint32_t *index);

#endif
