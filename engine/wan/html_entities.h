/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * html_entities.h: HTML 5's named character references; html_entities.py makes the table while building.
 */
#pragma once

#include <stddef.h>

#define DP_MAX_HTML_ENTITY 32   /* bytes of a name */

typedef struct
{
  const char *name;             /* ends in a semicolon, unless HTML allows it without */
  const char *text;             /* one or two characters, UTF-8 */
} DpHtmlEntity;

/** Sorted by the bytes of the names. */
extern const DpHtmlEntity dp_html_entities[];
extern const size_t dp_n_html_entities;
