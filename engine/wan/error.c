/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "error.h"

/* Not G_DEFINE_QUARK: that keeps it where threads race to write it */
GQuark
dp_error_quark (void)
{
  return g_quark_from_static_string ("dp-error-quark");
}
