"""Writes the HLO fixtures: `python tests/testdata/make.py cpu|old|tpu|gpu`, each with a jaxlib of its own (README.md).

One set of small functions is compiled for every backend, so that tests can compare what the backends made of it.
"""

# ruff: noqa: E402
import os
import re
import sys
from pathlib import Path

BACKEND = sys.argv[1] if len(sys.argv) == 2 else ""
HERE = Path(__file__).resolve().parent
os.environ["JAX_PLATFORMS"] = "cpu"  # the compiler for the other chips is asked for by name
if BACKEND in ("cpu", "old"):
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
elif BACKEND == "tpu":
    os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_ACCELERATOR_TYPE="v5litepod-4", TPU_WORKER_HOSTNAMES="localhost")
elif BACKEND == "gpu":
    os.environ["XLA_FLAGS"] = "--xla_gpu_collect_cost_model_stats=true"
else:
    sys.exit(__doc__)

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

# NVIDIA H100 SXM5, by its data sheet and the CUDA programming guide's table for compute capability 9.0.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3350000000000 l2_cache_size: 52428800 device_memory_size: 85899345920
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 SXM5 80GB"
"""
B, L, D, H, F, N = 2, 16, 64, 4, 256, 2


def layer_norm(x_BLD, scale_D):
    mean = x_BLD.mean(-1, keepdims=True)
    variance = ((x_BLD - mean) ** 2).mean(-1, keepdims=True)
    return (x_BLD - mean) * jax.lax.rsqrt(variance + 1e-5) * scale_D


def attention(x_BLD, qkv_D3D, out_DD):
    q, k, v = (t.reshape(B, L, H, D // H) for t in jnp.split(x_BLD @ qkv_D3D, 3, -1))
    scores_BHLL = jnp.einsum("blhk,bmhk->bhlm", q, k) * (D // H) ** -0.5
    mask_LL = jnp.tril(jnp.ones((L, L), bool))
    weights_BHLL = jax.nn.softmax(jnp.where(mask_LL, scores_BHLL, -1e9), -1)
    return jnp.einsum("bhlm,bmhk->blhk", weights_BHLL, v).reshape(B, L, D) @ out_DD


def block(x_BLD, layers):
    """N transformer layers: 2 x (4 matmuls of weights + 2 of attention)."""
    for i, layer in enumerate(layers):
        with jax.named_scope(f"h_{i}"):
            with jax.named_scope("attn"):
                x_BLD = x_BLD + attention(layer_norm(x_BLD, layer["ln_1"]), layer["qkv"], layer["out"])
            with jax.named_scope("mlp"):
                h_BLF = jax.nn.gelu(layer_norm(x_BLD, layer["ln_2"]) @ layer["fc"])
                x_BLD = x_BLD + h_BLF @ layer["proj"]
    return x_BLD


def scan(x_BD, w_NDD):
    """A loop of known length: N matmuls."""
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), x.sum()), x_BD, w_NDD)


def conv(image, kernel, grouped):
    """Strided and grouped, dilated convolutions."""
    y = jax.lax.conv_general_dilated(image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.lax.conv_general_dilated(
        y, grouped, (1, 1), ((1, 2), (0, 1)), rhs_dilation=(2, 1), feature_group_count=4,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def select(scores_BV, table_VD, updates_BD):
    """Sorting, top-k, gather, scatter, cumulative sums, windows, a conditional."""
    best, places = jax.lax.top_k(scores_BV, 5)
    rows = table_VD[places[:, 0]] + updates_BD
    pooled = jax.lax.reduce_window(scores_BV, -jnp.inf, jax.lax.max, (1, 4), (1, 2), "VALID")
    total = jax.lax.cond(best[0, 0] > 0, lambda r: r.sum(), lambda r: r.max(), rows)
    return jnp.sort(scores_BV), best, table_VD.at[places[:, 1]].add(rows), jnp.cumsum(pooled, 1), total


def sharded(x_BD, w_DF, v_FD):
    """Tensor parallel: two matmuls and an all-reduce over one axis of a 2 x 2 mesh."""
    return jax.nn.relu(x_BD @ w_DF) @ v_FD


def programs(dtype):
    """Name, function, arguments (shape, dtype) of the programs on one device."""
    a = lambda *dims, dtype=dtype: jax.ShapeDtypeStruct(dims, dtype)  # noqa: E731
    layer = dict(ln_1=a(D), ln_2=a(D), qkv=a(D, 3 * D), out=a(D, D), fc=a(D, F), proj=a(F, D))
    yield "block", block, (a(B, L, D), [layer] * N)
    if dtype == jnp.float32:
        yield "scan", scan, (a(8, D), a(3, D, D))
        yield "conv", conv, (a(2, 16, 16, 8), a(3, 3, 8, 16), a(3, 3, 4, 32))
        yield "select", select, (a(4, 64), a(64, 32), a(4, 32))


def devices():
    if BACKEND in ("cpu", "old"):
        return jax.devices()
    from jax.experimental import topologies  # which an old jax lacks

    if BACKEND == "tpu":
        return topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu").devices
    return topologies.get_topology_desc("", platform="cuda", topology="1x1x4", target_config=H100).devices


def write(name, text):
    path = HERE / "hlo" / f"{name}.hlo"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(f"{path.name}: {len(text) // 1000} kB")


def main():
    # Names of files without the folders of this machine.
    jax.config.update("jax_hlo_source_file_canonicalization_regex", r".*/(tests/testdata|site-packages)/")
    chips = devices()
    version = jax.lib.__version__
    prefix = f"cpu_{version}" if BACKEND in ("cpu", "old") else BACKEND
    one = SingleDeviceSharding(chips[0])
    types = [(jnp.float32, "f32"), (jnp.bfloat16, "bf16")]
    newest = BACKEND == "cpu" and tuple(map(int, version.split(".")[:2])) >= (0, 11)
    if BACKEND in ("cpu", "old") and not newest:
        types.pop()  # the newest CPU's bfloat16 is enough
    for dtype, suffix in types:
        for name, function, arguments in programs(dtype):
            placed = jax.tree_util.tree_map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=one), arguments)
            lowered = jax.jit(function).lower(*placed)
            write(f"{prefix}_{name}_{suffix}", lowered.compile().as_text())
            if newest and name == "block" and suffix == "f32":
                write(f"{prefix}_{name}_{suffix}_unoptimised", lowered.compiler_ir("hlo").as_hlo_text())
    mesh = Mesh(np.array(chips[:4]).reshape(2, 2), ("data", "model"))
    place = lambda dims, *axes: jax.ShapeDtypeStruct(  # noqa: E731
        dims, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes))
    )
    arguments = place((32, D), "data", None), place((D, F), None, "model"), place((F, D), "model", None)
    out = NamedSharding(mesh, PartitionSpec("data", None))
    write(f"{prefix}_sharded_f32", jax.jit(sharded, out_shardings=out).lower(*arguments).compile().as_text())


if __name__ == "__main__":
    main()
    for path in sorted((HERE / "hlo").glob("*.hlo")):
        if re.search(r'"/(home|root|work|usr|tmp)/', path.read_text()):
            sys.exit(f"{path.name} names a folder of this machine")
