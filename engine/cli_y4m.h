/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cli_y4m.h: the file that `dualparal generate` writes, YUV4MPEG2.
 *
 * The format cannot say which matrix its YUV was made with. ffmpeg reads it as BT.601, and other players do
 * so up to 576 lines. So it is BT.601, limited range, made from the engine's RGB, and not the engine's own
 * I420, which is BT.709.
 */
#pragma once

#include "dualparal.h"

#include <stdio.h>

/** FALSE with errno set when it could not be written. */
gboolean dp_cli_y4m_header (FILE *file, int width, int height, int fps_n, int fps_d);

/** A frame of DP_FORMAT_RGB or DP_FORMAT_RGB_F32, which make the same bytes; 4:2:0, chroma averaged over 2x2.
 *  FALSE with errno set when it could not be written. */
gboolean dp_cli_y4m_frame (FILE *file, const DpFrame *frame, DpFormat format);
