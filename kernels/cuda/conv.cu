/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: T frames of h x w pixels, ci channels in and co out, kernel kt x kh x kw.
 */
#include "conv.h"
#include "vec.cuh"

/* What the kernels need to know of a call. */
struct Call
{
  int t, h, w, ci, co, kt, kh, kw;      /* t: of the output */
  const void *x, *add;
  void *y;
  const float *bias;
};

static Call
call_of (const DpConvSpec *spec, const DpConvArgs *args, const float *bias)
{
  return { args->t - spec->kt + 1, args->h, args->w, spec->ci, spec->co, spec->kt, spec->kh, spec->kw, args->x, args->add, args->y, bias };
}

static int
taps_of (const DpConvSpec *spec)
{
  return spec->kt * spec->kh * spec->kw;
}

/* ---- few output channels, bfloat16: [pixels, 16 channels] . [16 channels, 8] on tensor cores ----
 *
 * One block has 8 rows of 32 pixels, a warp two of the rows, of all frames of the output, KT of them at a time: they take in a frame of
 * x together, each with another tap. What the block sees of a frame, some channels of it, lies in shared memory; each tap in space is the
 * same pixels moved. Packed weights: [channels / 16, taps, lane, 2 words], as the instruction wants them.
 */

enum { TILE_W = 32, TILE_H = 8, NARROW_WARPS = 4, NARROW_SHARED = 96 << 10, NARROW_CHUNK = 96 };

/* Bytes of a pixel in shared memory: an odd number of 16, so that 8 neighbours lie in different banks. */
static __host__ __device__ int
pixel_pitch (int chunk)
{
  return chunk * 2 + 16;
}

static size_t
narrow_shared (const DpConvSpec *spec, int chunk)
{
  return (size_t) (TILE_H + spec->kh - 1) * (TILE_W + spec->kw - 1) * pixel_pitch (chunk);
}

int
dp_conv_narrow_chunk (const DpConvSpec *spec)
{
  int chunk = spec->ci < NARROW_CHUNK ? (spec->ci + 15) / 16 * 16 : NARROW_CHUNK;

  while (chunk > 0 && narrow_shared (spec, chunk) > NARROW_SHARED)
    chunk -= 16;
  return chunk;
}

/* Channels [c0, c0 + channels) of frame t of x, around the block's pixels, into shared memory; zeros where there is nothing. */
static __device__ void
load_window (const Call &c, char *shared, int pitch, int t, int y0, int x0, int c0, int channels)
{
  int width = TILE_W + c.kw - 1, pixels = (TILE_H + c.kh - 1) * width, pieces = channels / 8;
  const bf16 *frame = (const bf16 *) c.x + (int64_t) t * c.h * c.w * c.ci;

  for (int i = threadIdx.x; i < pixels * pieces; i += NARROW_WARPS * 32) {
    int pixel = i / pieces, piece = i % pieces, y = y0 + pixel / width - c.kh / 2, x = x0 + pixel % width - c.kw / 2;
    bool inside = y >= 0 && y < c.h && x >= 0 && x < c.w && c0 + piece * 8 < c.ci;
    const bf16 *from = inside ? frame + ((int64_t) y * c.w + x) * c.ci + c0 + piece * 8 : frame;

    asm volatile ("cp.async.ca.shared.global [%0], [%1], 16, %2;" :: "r" ((uint32_t) __cvta_generic_to_shared (shared + pixel * pitch
            + piece * 16)), "l" (from), "r" (inside ? 16 : 0) : "memory");
  }
  asm volatile ("cp.async.commit_group;\n\tcp.async.wait_group 0;" ::: "memory");
}

/* The block's pixels of frame t, of which this thread has some. */
static __device__ __forceinline__ void
store_pixels (const Call &c, const float (&sum)[4][4], int t, int y0, int x0)
{
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int y = y0 + warp * 2 + m / 2, x = x0 + m % 2 * 16 + lane / 4 + i / 2 * 8, o = lane % 4 * 2 + i % 2;
      int64_t at = (((int64_t) t * c.h + y) * c.w + x) * c.co + o;

      if (y < c.h && x < c.w && o < c.co)
        from_f32 (sum[m][i] + c.bias[o] + (c.add ? to_f32 (((const bf16 *) c.add)[at]) : 0), (bf16 *) c.y + at);
    }
}

template<int KT> static __global__ void __launch_bounds__ (NARROW_WARPS * 32, 3)
narrow (const Call c, const uint2 *__restrict__ weights, int chunk)
{
  extern __shared__ __align__ (16) char shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, x0 = blockIdx.x * TILE_W, y0 = blockIdx.y * TILE_H;
  const int width = TILE_W + c.kw - 1, pitch = pixel_pitch (chunk), window = c.kh * c.kw, taps = KT * window;
  /* Where this lane's row of the instruction's [16 pixels, 16 channels] begins, for the warp's first 16 pixels. */
  const uint32_t base = (uint32_t) __cvta_generic_to_shared (shared) + (warp * 2 * width + lane % 16) * pitch + lane / 16 * 16;
  float sum[KT][4][4] = { };    /* of frame t - a of the output */

  for (int t = 0; t < c.t + KT - 1; t++) {
    for (int c0 = 0; c0 < c.ci; c0 += chunk) {
      int channels = min (chunk, (c.ci - c0 + 15) / 16 * 16);

      __syncthreads ();
      load_window (c, shared, pitch, t, y0, x0, c0, channels);
      __syncthreads ();
      for (int dy = 0; dy < c.kh; dy++)
        for (int dx = 0; dx < c.kw; dx++) {
          const uint2 *w = weights + ((int64_t) (c0 / 16) * taps + dy * c.kw + dx) * 32 + lane;
          uint32_t at = base + (dy * width + dx) * pitch;

          for (int k = 0; k < channels; k += 16, w += taps * 32, at += 32) {
            uint2 b[KT];

#pragma unroll
            for (int a = 0; a < KT; a++)
              b[a] = __ldg (w + a * window * 32);
#pragma unroll
            for (int m = 0; m < 4; m++) {
              uint32_t r[4];

              asm volatile ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                  : "=r" (r[0]), "=r" (r[1]), "=r" (r[2]), "=r" (r[3]) : "r" (at + (m / 2 * width + m % 2 * 16) * pitch));
#pragma unroll
              for (int a = 0; a < KT; a++) {
                float (&s)[4] = sum[a][m];

                asm ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                    : "+f" (s[0]), "+f" (s[1]), "+f" (s[2]), "+f" (s[3])
                    : "r" (r[0]), "r" (r[1]), "r" (r[2]), "r" (r[3]), "r" (b[a].x), "r" (b[a].y));
              }
            }
          }
        }
    }
    if (t >= KT - 1)
      store_pixels (c, sum[KT - 1], t - (KT - 1), y0, x0);
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int a = KT - 1; a > 0; a--)
          sum[a][m][i] = sum[a - 1][m][i];
        sum[0][m][i] = 0;
      }
  }
}

void
dp_conv_narrow (DpDeviceCuda *dev, const DpConvSpec *spec, const DpConvArgs *args, const void *packed, const float *bias)
{
  Call c = call_of (spec, args, bias);
  int chunk = dp_conv_narrow_chunk (spec);
  size_t bytes = narrow_shared (spec, chunk);
  dim3 blocks (blocks_for (c.w, TILE_W), blocks_for (c.h, TILE_H));
  void (*kernel) (Call, const uint2 *, int) = c.kt == 3 ? narrow<3> : c.kt == 2 ? narrow<2> : narrow<1>;

  if (!dp_cuda_ok (dev, cudaFuncSetAttribute (kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "convolution"))
    return;
  kernel<<<blocks, NARROW_WARPS * 32, bytes, dev->stream>>> (c, (const uint2 *) packed, chunk);
  dp_cuda_launched (dev, "convolution");
}

/* ---- anything, in float32: a block has 64 pixels and 64 output channels, a thread 4 of each; 16 input channels of a tap at a time ---- */

enum { PLAIN = 64, PLAIN_K = 16, PLAIN_THREADS = 256 };

template <typename T>
static __global__ void __launch_bounds__ (PLAIN_THREADS)
plain (const Call c, const float *__restrict__ weights)
{
  __shared__ float xs[PLAIN_K][PLAIN + 4], ws[PLAIN_K][PLAIN];
  const int64_t pixels = (int64_t) c.t * c.h * c.w, first = (int64_t) blockIdx.x * PLAIN;
  const int o0 = blockIdx.y * PLAIN, row = threadIdx.x / 16, col = threadIdx.x % 16;
  /* The pixel this thread fetches for the block, and 4 of its channels. */
  const int fetched = threadIdx.x / 4, k0 = threadIdx.x % 4 * 4;
  const int64_t pixel = first + fetched;
  const int px = pixel % c.w, py = pixel / c.w % c.h, pt = pixel / c.w / c.h;
  const T *x = (const T *) c.x;
  float sum[4][4] = { };
  int tap = 0;

  for (int a = 0; a < c.kt; a++)
    for (int dy = -c.kh / 2; dy <= c.kh / 2; dy++)
      for (int dx = -c.kw / 2; dx <= c.kw / 2; dx++, tap++) {
        bool inside = pixel < pixels && py + dy >= 0 && py + dy < c.h && px + dx >= 0 && px + dx < c.w;
        const T *from = x + (((int64_t) (pt + a) * c.h + py + dy) * c.w + px + dx) * c.ci;

        for (int i0 = 0; i0 < c.ci; i0 += PLAIN_K) {
          __syncthreads ();
          for (int k = k0; k < k0 + 4; k++)
            xs[k][fetched] = inside && i0 + k < c.ci ? to_f32 (from[i0 + k]) : 0;
          for (int i = threadIdx.x; i < PLAIN_K * PLAIN; i += PLAIN_THREADS) {
            int k = i / PLAIN, o = i % PLAIN;

            ws[k][o] = i0 + k < c.ci && o0 + o < c.co ? weights[((int64_t) tap * c.ci + i0 + k) * c.co + o0 + o] : 0;
          }
          __syncthreads ();
#pragma unroll
          for (int k = 0; k < PLAIN_K; k++) {
            float4 xv = *(const float4 *) &xs[k][row * 4], wv = *(const float4 *) &ws[k][col * 4];
            const float xf[4] = { xv.x, xv.y, xv.z, xv.w }, wf[4] = { wv.x, wv.y, wv.z, wv.w };

#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
              for (int o = 0; o < 4; o++)
                sum[i][o] += xf[i] * wf[o];
          }
        }
      }
  for (int i = 0; i < 4; i++)
    for (int o = 0; o < 4; o++) {
      int64_t p = first + row * 4 + i, at = p * c.co + o0 + col * 4 + o;

      if (p < pixels && o0 + col * 4 + o < c.co)
        from_f32 (sum[i][o] + c.bias[o0 + col * 4 + o] + (c.add ? to_f32 (((const T *) c.add)[at]) : 0), (T *) c.y + at);
    }
}

void
dp_conv_plain (DpDeviceCuda *dev, const DpConvSpec *spec, const DpConvArgs *args, const void *packed, const float *bias)
{
  Call c = call_of (spec, args, bias);
  dim3 blocks (blocks_for ((size_t) c.t * c.h * c.w, PLAIN), blocks_for (c.co, PLAIN));

  if (spec->type == DP_TYPE_F32)
    plain<float> <<<blocks, PLAIN_THREADS, 0, dev->stream>>> (c, (const float *) packed);
  else
    plain<bf16> <<<blocks, PLAIN_THREADS, 0, dev->stream>>> (c, (const float *) packed);
  dp_cuda_launched (dev, "convolution");
}

/* ---- the end of a convolution: one thread has 8 channels of a pixel ---- */

static __global__ void
finish (size_t pieces, int co, const bf16 *x, const float *bias, const bf16 *add, bf16 *y)
{
  size_t i = (size_t) blockIdx.x * blockDim.x + threadIdx.x;
  float f[8], b[8], a[8] = { };

  if (i >= pieces)
    return;
  load (x + i * 8, f);
  load (bias + i * 8 % co, b);
  if (add)
    load (add + i * 8, a);
  for (int k = 0; k < 8; k++)
    f[k] += b[k] + a[k];
  store (y + i * 8, f);
}

void
dp_conv_finish (DpDeviceCuda *dev, size_t n, int co, const void *x, const float *bias, const void *add, void *y)
{
  size_t pieces = n * co / 8;

  finish<<<blocks_for (pieces, 256), 256, 0, dev->stream>>> (pieces, co, (const bf16 *) x, bias, (const bf16 *) add, (bf16 *) y);
  dp_cuda_launched (dev, "convolution's bias");
}

/* ---- packing ---- */

static __global__ void
pack_cudnn (size_t n, int ci, int taps, const bf16 *w, bf16 *packed)
{
  for (size_t i = (size_t) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t) gridDim.x * blockDim.x) {
    size_t o = i / ci / taps;
    int tap = i / ci % taps, c = i % ci;

    packed[i] = w[(o * ci + c) * taps + tap];
  }
}

template <typename T>
static __global__ void
pack_plain (size_t n, int ci, int co, int taps, const T *w, float *packed)
{
  for (size_t i = (size_t) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t) gridDim.x * blockDim.x) {
    size_t o = i % co;
    int c = i / co % ci, tap = i / co / ci;

    packed[i] = to_f32 (w[(o * ci + c) * taps + tap]);
  }
}

/* Element e (of 4) of a lane is B[k, o] with k = lane % 4 * 2 + e % 2 + e / 2 * 8, o = lane / 4. */
static __global__ void
pack_narrow (size_t n, int ci, int co, int taps, const bf16 *w, bf16 *packed)
{
  for (size_t i = (size_t) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t) gridDim.x * blockDim.x) {
    int e = i % 4, lane = i / 4 % 32, tap = i / 128 % taps, o = lane / 4;
    int c = (int) (i / 128 / taps) * 16 + lane % 4 * 2 + e % 2 + e / 2 * 8;

    packed[i] = o < co && c < ci ? w[((size_t) o * ci + c) * taps + tap] : __float2bfloat16_rn (0);
  }
}

static size_t
packed_elements (DpConvKind kind, const DpConvSpec *spec)
{
  if (kind == DP_CONV_NARROW)
    return (size_t) (spec->ci + 15) / 16 * taps_of (spec) * 128;
  return (size_t) spec->co * spec->ci * taps_of (spec);
}

size_t
dp_conv_packed_size (DpConvKind kind, const DpConvSpec *spec)
{
  return packed_elements (kind, spec) * (kind == DP_CONV_PLAIN ? sizeof (float) : sizeof (bf16));
}

void
dp_conv_pack (DpDeviceCuda *dev, DpConvKind kind, const DpConvSpec *spec, const void *w, void *packed)
{
  size_t n = packed_elements (kind, spec);
  unsigned blocks = n < 1 << 20 ? blocks_for (n, 256) : 4096;
  int taps = taps_of (spec);

  if (kind == DP_CONV_CUDNN)
    pack_cudnn<<<blocks, 256, 0, dev->stream>>> (n, spec->ci, taps, (const bf16 *) w, (bf16 *) packed);
  else if (kind == DP_CONV_NARROW)
    pack_narrow<<<blocks, 256, 0, dev->stream>>> (n, spec->ci, spec->co, taps, (const bf16 *) w, (bf16 *) packed);
  else if (spec->type == DP_TYPE_F32)
    pack_plain<<<blocks, 256, 0, dev->stream>>> (n, spec->ci, spec->co, taps, (const float *) w, (float *) packed);
  else
    pack_plain<<<blocks, 256, 0, dev->stream>>> (n, spec->ci, spec->co, taps, (const bf16 *) w, (float *) packed);
  dp_cuda_launched (dev, "packing a convolution");
}
