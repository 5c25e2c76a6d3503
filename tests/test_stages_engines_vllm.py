"""The vLLM engine without vLLM: what it asks of Ray Data LLM, and what it makes of the answers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from pipeline import cluster
from pipeline.cli_options import load_config
from pipeline.config import ClusterConfig
from pipeline.errors import UsageError
from pipeline.models import Record, manifest
from stages.engines import transformers, vllm
from stages.engines.base import ANSWERS, PROMPTS, Decoding, EngineConfig, part

JPEG, PNG = b"\xff\xd8\xff one", b"\x89PNG two"
JPEG_URL, PNG_URL = "data:image/jpeg;base64,/9j/IG9uZQ==", "data:image/png;base64,iVBORyB0d28="
SCHEMA = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 60}}

ENGINE_ARGS = """
additional_config aggregate_engine_logging all2all_backend allow_deprecated_quantization allowed_local_media_path
allowed_media_domains async_scheduling attention_backend attention_config block_size code_revision
collect_detailed_traces compilation_config config_format convert cp_kv_cache_interleave_size
cpu_distributed_timeout_seconds cpu_offload_gb cpu_offload_params cudagraph_capture_sizes cudagraph_metrics
data_parallel_address data_parallel_backend data_parallel_external_lb data_parallel_hybrid_lb
data_parallel_multi_port_external_lb data_parallel_rank data_parallel_rpc_port data_parallel_size
data_parallel_size_local data_parallel_start_rank dbo_decode_token_threshold dbo_prefill_token_threshold
dcp_comm_backend dcp_kv_cache_interleave_size dcp_q_replicate decode_context_parallel_size default_mm_loras
device_ids diffusion_config disable_cascade_attn disable_chunked_mm_input disable_custom_all_reduce
disable_hybrid_kv_cache_manager disable_log_stats disable_nccl_for_dp_synchronization disable_sliding_window
distributed_executor_backend distributed_timeout_seconds download_dir dtype ec_manager_config ec_transfer_config
enable_batch_sharded_sampling enable_bf16x3_router_gemm enable_chunked_prefill enable_cumem_allocator enable_dbo
enable_elastic_ep enable_ep_weight_filter enable_eplb enable_expert_parallel enable_fault_tolerance
enable_flashinfer_autotune enable_layerwise_nvtx_tracing enable_log_requests enable_logging_iteration_details
enable_lora enable_mamba_cache_stochastic_rounding enable_mfu_metrics enable_mixed_moe_lora_format enable_mm_embeds
enable_mm_processor_stats enable_moe_shared_loras enable_prefix_caching enable_prompt_embeds
enable_return_routed_experts enable_sleep_mode enable_tower_connector_lora enable_trace_replay enforce_eager
eplb_config expert_placement_strategy fail_on_environ_validation fault_tolerance_config fully_sharded_loras
gdn_prefill_backend generation_config gpu_memory_utilization hf_config_path hf_overrides hf_token ignore_patterns
interleave_mm_strings io_processor_plugin ir_op_priority jit_monitor_mode jit_monitor_verbose kda_prefill_backend
kernel_config kv_cache_dtype kv_cache_dtype_skip_layers kv_cache_memory_bytes kv_cache_metrics
kv_cache_metrics_sample kv_events_config kv_offloading_backend kv_offloading_size kv_sharing_fast_prefill
kv_transfer_config language_model_only limit_mm_per_prompt linear_backend load_format logits_processors
logprobs_mode long_prefill_token_threshold lora_dtype lora_target_modules mamba_backend mamba_block_size
mamba_cache_dtype mamba_cache_mode mamba_cache_philox_rounds mamba_config mamba_ssm_cache_dtype mamba_ssu_algorithm
master_addr master_port max_cpu_loras max_cudagraph_capture_size max_logprobs max_lora_rank max_loras max_model_len
max_num_batched_tokens max_num_queued_reqs max_num_queued_tokens max_num_scheduled_tokens max_num_seqs
max_parallel_loading_workers media_io_kwargs mm_device_do_normalize mm_encoder_attn_backend mm_encoder_attn_dtype
mm_encoder_fp8_scale_path mm_encoder_fp8_scale_save_margin mm_encoder_fp8_scale_save_path mm_encoder_only
mm_encoder_tp_mode mm_hasher_algorithm mm_ipc_gpu_memory_gb mm_processor_cache_gb mm_processor_cache_type
mm_processor_device mm_processor_kwargs mm_shm_cache_max_object_size_mb mm_tensor_ipc model model_class_overrides
model_impl model_loader_extra_config model_weights moe_backend nnodes node_rank num_gpu_blocks_override numa_bind
numa_bind_cpus numa_bind_nodes offload_backend offload_group_size offload_num_in_group offload_params
offload_prefetch_step optimization_level otlp_traces_endpoint override_generation_config
per_request_spec_decode_metrics performance_mode pipeline_parallel_size pooler_config prefill_context_parallel_size
prefill_schedule_interval prefix_cache_retention_interval prefix_caching_hash_algo prefix_match_unit profiler_config
pt_load_map_location quantization quantization_config ray_workers_use_nsight reasoning_config reasoning_parser
reasoning_parser_plugin renderer_num_workers replayssm_buffer_len return_sampling_mask revision runner
safetensors_load_strategy safetensors_prefetch_block_size safetensors_prefetch_num_threads scheduler_cls
scheduler_reserve_full_isl scheduling_policy seed served_model_name show_hidden_metrics_for_version shutdown_timeout
skip_mm_profiling skip_tokenizer_init spec_method spec_model spec_tokens specialize_active_lora speculative_config
stream_interval structured_outputs_config tensor_parallel_size tokenizer tokenizer_mode tokenizer_revision
tokens_only trust_remote_code ubatch_size use_fp64_gumbel use_replayssm use_tqdm_on_load video_pruning_method
video_pruning_rate watermark weight_transfer_config worker_cls worker_extension_cls
"""
"""Names of the arguments of vLLM 0.29.0's AsyncEngineArgs (vllm/engine/arg_utils.py)."""


def prompt(number: int, *pieces: str | bytes, problem: str | None = None) -> dict[str, Any]:
    """A row of `PROMPTS`; odd ones are about two masks."""
    return {
        "prompt_id": number,
        "image_id": number // 3,
        "shard": "sa_000000",
        "subjects": [number, number + 100] if number % 2 else [number],
        "parts": [part(piece) for piece in pieces],
        "image_tokens": 10 * number,
        "shared_tokens": number,
        "problem": problem,
        "reason": problem and "image-unreadable",
    }


def about(row: dict[str, Any]) -> dict[str, Any]:
    """What an answer repeats of its prompt."""
    return {name: value for name, value in row.items() if name != "parts"}


def answer(row: dict[str, Any], **told: Any) -> dict[str, Any]:
    """A row of `ANSWERS` to a prompt."""
    return {**dict.fromkeys(ANSWERS.names), **about(row), **told}


# --- configuration ----------------------------------------------------------------------------------------


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A folder of models as `rr7k models fetch` leaves it, the weights left out."""
    for name, kind in {
        "qwen2.5-vl-72b": "qwen2_5_vl",
        "internvl3-78b": "internvl",
        "internvl2.5-78b": "internvl_chat",
    }.items():
        model = manifest()[name]
        place = tmp_path / name / model.revision
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps({"model_type": kind}))
        (place / "rr7k-model.json").write_bytes(msgspec.json.encode(Record(name, model.repo, model.revision, {})))
    return tmp_path


def namer(*overrides: str) -> EngineConfig:
    """The engine of the preset `cluster`."""
    config: EngineConfig = load_config("cluster", [f"namer.{override}" for override in overrides]).namer
    return config


def engine_kwargs(config: EngineConfig) -> dict[str, Any]:
    """What vLLM is started with; `task_type` is Ray's own and does not get there."""
    kwargs: dict[str, Any] = vllm.processor_config(config).engine_kwargs
    return {name: value for name, value in kwargs.items() if name != "task_type"}


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_says_what_to_install_and_what_works_instead() -> None:
    with pytest.raises(UsageError, match=r"pip install 'rr7k\[pipeline,models,vllm\]'.*kind = openai"):
        vllm.answers(None, namer(), Decoding(24))


def test_the_cluster_preset_makes_two_replicas_over_four_gpus_each(fetched: Path) -> None:
    config = vllm.processor_config(namer(f"models={fetched}"))
    assert config.model_source == str(fetched / "qwen2.5-vl-72b" / manifest()["qwen2.5-vl-72b"].revision)
    assert (config.concurrency, config.batch_size, config.max_concurrent_batches) == ((2, 2), 32, 8)
    assert config.should_continue_on_error
    # "openai" keeps pictures and texts in their order; with "string", Ray's default, all pictures come first.
    assert config.prepare_multimodal_stage == {"enabled": True, "chat_template_content_format": "openai"}


def test_vllm_is_started_with_these_arguments(fetched: Path) -> None:
    assert engine_kwargs(namer(f"models={fetched}", "max_model_len=4096", "max_pixels=1003520")) == {
        "tensor_parallel_size": 4,
        "max_model_len": 4096,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 8192,
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": 2, "video": 0},
        "mm_encoder_tp_mode": "data",
        "mm_processor_kwargs": {"size": {"shortest_edge": 3136, "longest_edge": 1003520}},
    }


def test_the_cluster_preset_checks_with_internvl_in_tiles(fetched: Path) -> None:
    settings = load_config("cluster", [f"verifier.models={fetched}"])
    config = vllm.processor_config(settings.verifier)
    assert config.model_source == str(fetched / "internvl3-78b" / manifest()["internvl3-78b"].revision)
    assert config.engine_kwargs["mm_processor_kwargs"] == {"crop_to_patches": True, "max_patches": 12}
    assert "trust_remote_code" not in config.engine_kwargs
    assert settings.verify.square


def test_a_model_that_needs_its_own_code_is_trusted_if_it_is_pinned(fetched: Path) -> None:
    older = load_config("cluster", [f"verifier.models={fetched}", "verifier.model=internvl2.5-78b"]).verifier
    kwargs = engine_kwargs(older)
    assert kwargs["trust_remote_code"] is True
    assert kwargs["mm_processor_kwargs"] == {"max_dynamic_patch": 12}
    place = fetched / "internvl2.5-78b" / manifest()["internvl2.5-78b"].revision
    assert "trust_remote_code" not in engine_kwargs(older.model_copy(update={"model": str(place)}))
    with pytest.raises(UsageError, match="only kind = vllm loads it"):
        transformers.answers(None, older.model_copy(update={"kind": "transformers"}), Decoding(8))


def test_vllm_knows_every_argument(fetched: Path) -> None:
    assert set(engine_kwargs(namer(f"models={fetched}"))) <= set(ENGINE_ARGS.split())


def test_only_qwen_is_told_how_many_pixels_to_keep(fetched: Path) -> None:
    assert engine_kwargs(namer(f"models={fetched}", "model=internvl3-78b"))["mm_processor_kwargs"] == {}


@pytest.mark.parametrize("batch", [1, 16, 32, 100, 1024])
def test_enough_batches_are_under_way_to_fill_the_engine(fetched: Path, batch: int) -> None:
    config = vllm.processor_config(namer(f"models={fetched}", f"batch={batch}"))
    assert config.batch_size * config.max_concurrent_batches >= config.engine_kwargs["max_num_seqs"]


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-VL-7B-Instruct", "s3://models/qwen", "/nowhere"])
def test_a_model_that_is_neither_pinned_nor_a_folder_is_refused(model: str) -> None:
    with pytest.raises(UsageError, match=rf"model = {model}: kind = vllm needs a name in .*models.toml, or"):
        vllm.processor_config(namer(f"model={model}"))


# --- row by row -------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_chat_message_with_its_pieces_in_order() -> None:
    row = prompt(5, "Here is", JPEG, "and", PNG, "What?")
    assert vllm.asked(row, Decoding(24)) == {
        "parts": None,
        "subjects": None,
        "kept": json.dumps(about(row)),
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Here is"},
                    {"type": "image_url", "image_url": {"url": JPEG_URL}},
                    {"type": "text", "text": "and"},
                    {"type": "image_url", "image_url": {"url": PNG_URL}},
                    {"type": "text", "text": "What?"},
                ],
            }
        ],
        "sampling_params": {"temperature": 0.0, "max_tokens": 24, "logprobs": 0},
    }


def test_a_schema_is_handed_on_as_text() -> None:
    asked = vllm.asked(prompt(5, JPEG, "What?"), Decoding(240, SCHEMA))
    assert asked["sampling_params"] == {
        "temperature": 0.0,
        "max_tokens": 240,
        "logprobs": 0,
        "structured_outputs": {"json": json.dumps(SCHEMA)},
    }


def test_a_prompt_that_could_not_be_rendered_costs_one_token() -> None:
    asked = vllm.asked(prompt(5, problem="not a JPEG"), Decoding(240, SCHEMA))
    assert asked["messages"] == [{"role": "user", "content": [{"type": "text", "text": "skip"}]}]
    assert asked["sampling_params"] == {"temperature": 0.0, "max_tokens": 1, "logprobs": 0}


TOLD = {"generated_text": "cat", "num_input_tokens": 99, "num_generated_tokens": 2, "time_taken_llm": 0.5}


def entry(token: str, logprob: float | None) -> dict[str, Any]:
    """What vLLM tells of a token."""
    return {"logprob": logprob, "rank": 1, "decoded_token": token}


ONE, TWO = entry("a", -0.25), entry("a", -0.5)


@pytest.mark.parametrize(
    ("steps", "logprob"),
    [
        ([{11: ONE}, {12: TWO}], -0.75),  # as vLLM tells it
        ([{"11": ONE, "12": None}, {"11": None, "12": TWO}], -0.75),  # as Arrow would hand it on
        ([], 0.0),
        (None, None),
    ],
)
def test_an_answer_is_read(steps: list[Any] | None, logprob: float | None) -> None:
    row = {**prompt(5), **TOLD, "logprobs": steps, "kept": "{}", "generated_tokens": [11, 12]}
    read = vllm.read(row, Decoding(24))
    assert read.keys() == {"kept", "answer"}
    assert read["kept"] == "{}"
    assert json.loads(read["answer"]) == {
        "text": "cat",
        "logprob": logprob,
        "likeliest": None,
        "prompt_tokens": 99,
        "cached_tokens": None,
        "generated_tokens": 2,
        "seconds": 0.5,
        "error": None,
    }


def test_the_likeliest_first_words_are_asked_for_and_read() -> None:
    decoding = Decoding(8, likeliest=20)
    assert vllm.asked(prompt(5, "Is it?"), decoding)["sampling_params"]["logprobs"] == 20
    blank = {"1": entry(" ", -0.01), "2": entry("No", -5.0), "3": None}
    word = {"1": None, "2": entry("No", -1.5), "3": entry("Yes", -0.25), "4": entry("yes", None)}
    row = {**prompt(5), **TOLD, "logprobs": [blank, word], "kept": "{}"}
    told = json.loads(vllm.read(row, decoding)["answer"])
    assert sorted((one["token"], one["logprob"]) for one in told["likeliest"]) == [("No", -1.5), ("Yes", -0.25)]
    assert told["logprob"] == -0.26


def test_rows_are_finished() -> None:
    good, failed, skipped = prompt(1, "What?"), prompt(2, "What?"), prompt(3, problem="not a JPEG")
    kept = [vllm.asked(row, Decoding(24))["kept"] for row in (good, failed, skipped)]
    told = vllm.read({**TOLD, "logprobs": [{11: ONE}], "kept": kept[0]}, Decoding(24))["answer"]
    rows = pa.table(
        {
            "kept": kept,
            "answer": [told, None, told],
            "__inference_error__": ["", "ValueError: too narrow", ""],
            "generated_tokens": [None, [], None],  # of a row that failed, the processor leaves all it has
        }
    )
    finished = vllm.finished(rows)
    assert finished.schema == ANSWERS
    assert finished.to_pylist() == [
        answer(good, text="cat", logprob=-0.25, prompt_tokens=99, generated_tokens=2, seconds=0.5),
        answer(failed, error="ValueError: too narrow"),
        answer(skipped),
    ]


def test_a_block_of_failures_alone_is_finished() -> None:
    row = prompt(2, "What?")
    rows = pa.table({"kept": [vllm.asked(row, Decoding(24))["kept"]], "__inference_error__": ["ValueError: no"]})
    assert vllm.finished(rows).to_pylist() == [answer(row, error="ValueError: no")]


def test_a_skipped_prompt_that_fails_is_a_problem_all_the_same() -> None:
    row = prompt(3, problem="not a JPEG")
    rows = pa.table({"kept": [vllm.asked(row, Decoding(24))["kept"]], "__inference_error__": ["ValueError: no"]})
    assert vllm.finished(rows).to_pylist() == [answer(row)]


# --- through Ray Data -------------------------------------------------------------------------------------


def stand_in() -> Any:
    """A stand-in for the processor's vLLM stage, in Ray's own harness: repeats as text what it was asked.

    Prompts with the word "narrow" fail as they do there.
    """
    from ray.data import ActorPoolStrategy
    from ray.llm._internal.batch.stages import StatefulStage
    from ray.llm._internal.batch.stages.base import StatefulStageUDF
    from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMOutputData

    class StandIn(StatefulStageUDF):  # type: ignore[misc]  # Ray is not typed
        async def udf(self, rows: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
            for row in rows:
                yield {self.IDX_IN_BATCH_COLUMN: row[self.IDX_IN_BATCH_COLUMN], **self.reply(row)}

        def reply(self, row: dict[str, Any]) -> dict[str, Any]:
            content = list(row["messages"][0]["content"])
            heard = [part["text"] if part["type"] == "text" else part["image_url"]["url"] for part in content]
            wanted = row.pop("sampling_params")
            if "narrow" in heard:
                failed = vLLMOutputData(prompt="narrow", num_input_tokens=0).model_dump()
                return {**failed, "request_id": -1, "time_taken_llm": -1, "__inference_error__": "ValueError: narrow"}
            tokens = range(row["prompt_id"], row["prompt_id"] + 3)
            said = vLLMOutputData(
                prompt="",
                prompt_token_ids=[1, 2, 3],
                num_input_tokens=60,
                generated_tokens=list(tokens),
                generated_text=json.dumps([heard, wanted["max_tokens"], wanted.get("structured_outputs")]),
                num_generated_tokens=3,
                logprobs=[{token: entry("a", -0.5), token + 100: entry("b", -2.0)} for token in tokens],
            ).model_dump()
            return {**said, "request_id": 7, "time_taken_llm": 0.5, "__inference_error__": ""}

    return StatefulStage(fn=StandIn, map_batches_kwargs={"compute": ActorPoolStrategy(size=1)})


def test_answers_come_through_ray_data_whole(fetched: Path) -> None:
    import ray
    from ray.llm._internal.batch.processor.base import Processor

    rows = [
        prompt(1, "Here is", JPEG, "and", PNG, "What?"),
        prompt(2, problem="not a JPEG"),
        prompt(3, "narrow"),
        prompt(4, JPEG, "What?"),
        prompt(5, "narrow"),
        prompt(6, problem="not a JPEG"),
        prompt(7, PNG, "What?"),
    ]
    with cluster.session(ClusterConfig()):
        processor = Processor(
            vllm.processor_config(namer(f"models={fetched}", "batch=2")),
            [stand_in()],
            preprocess=lambda row: vllm.asked(row, Decoding(240, SCHEMA, likeliest=2)),
            postprocess=lambda row: vllm.read(row, Decoding(240, SCHEMA, likeliest=2)),
        )
        asked = ray.data.from_arrow([pa.Table.from_pylist(few, PROMPTS) for few in (rows[:4], rows[4:6], rows[6:])])
        finished = processor(asked).map_batches(vllm.finished, batch_size=None, batch_format="pyarrow")
        tables = list(finished.iter_batches(batch_size=None, batch_format="pyarrow"))

    assert {table.schema for table in tables} == {ANSWERS}
    got = {row["prompt_id"]: row for table in tables for row in table.to_pylist()}
    words = [{"token": "b", "logprob": -2.0}, {"token": "a", "logprob": -0.5}]
    told = {"logprob": -1.5, "likeliest": words, "prompt_tokens": 60, "generated_tokens": 3, "seconds": 0.5}
    constraint = {"json": json.dumps(SCHEMA)}
    heard = {1: ["Here is", JPEG_URL, "and", PNG_URL, "What?"], 4: [JPEG_URL, "What?"], 7: [PNG_URL, "What?"]}
    for row in rows:
        number = row["prompt_id"]
        if number in heard:
            assert got[number] == answer(row, text=json.dumps([heard[number], 240, constraint]), **told)
        else:
            assert got[number] == answer(row, error=None if row["problem"] else "ValueError: narrow")
