#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Prints the table of html_entities.h: Python's own, which the reference pipeline decodes prompts with."""
import html.entities


def quoted(text):
    """As a C string of bytes; octal has an end of its own."""
    return '"' + "".join(f"\\{byte:03o}" for byte in text.encode()) + '"'


ENTITIES = sorted(html.entities.html5.items(), key=lambda item: item[0].encode())
assert max(len(name) for name, text in ENTITIES) <= 32      # DP_MAX_HTML_ENTITY
print('#include "engine/wan/html_entities.h"\n\nconst DpHtmlEntity dp_html_entities[] = {')
for name, text in ENTITIES:
    print(f'  {{ "{name}", {quoted(text)} }},')
print(f"}};\nconst size_t dp_n_html_entities = {len(ENTITIES)};")
