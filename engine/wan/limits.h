/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * limits.h: the largest values of settings that model files may set too, or that a model's code checks.
 */
#pragma once

#define DP_MIN_SIZE 16          /* pixels, of a width or height */
#define DP_MAX_SIZE 8192
#define DP_MAX_STEPS 1000
#define DP_MAX_SCALE 100        /* of guidance and flow shift */
#define DP_MAX_BLOCK_LATENTS 1024
#define DP_MAX_PROMPT (16 << 10)        /* bytes */
