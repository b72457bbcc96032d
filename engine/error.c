/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dualparal.h"

G_DEFINE_QUARK (dp-error-quark, dp_error)
