"""Lists overrides of the recipe ``tiny`` that must be refused at start-up, each with its key and message."""

from support.unusual_rows import CONVERTED, REFUSED

SHARED = ["rsim.shared_weights=true", "planner.model.path=null"]
CASES = {
    "the recipe itself": ([], None, ""),
    "both frozen": (["rsim.train=[]"], "rsim.train", "both policies are frozen"),
    "lambda": (["rsim.lambda=1.5"], "rsim.lambda", "must be a number in [0, 1]"),
    "unknown stage": (["rsim.schedule=leader_last"], "rsim.schedule", "choose one of leader_first"),
    "reward term": (
        ["rsim.reward.terms=[{name: brevity, path: nowhere.brevity}]"],
        "rsim.reward.terms.brevity",
        "name an importable function",
    ),
    "sandbox": (["rsim.scoring.sandbox=jail"], "rsim.scoring.sandbox", "choose one of auto, bubblewrap"),
    "sandbox without its service": (
        ["reward.reward_manager.name=rsim_code", "rsim.scoring.sandbox=fusion"],
        "reward.sandbox_fusion.url",
        "needs the service's URL",
    ),
    "coding tasks without a sandbox": (
        ["data.train_files=HOME/data/humaneval/train.parquet", "rsim.scoring.sandbox=fusion"],
        "reward.sandbox_fusion.url",
        "needs the service's URL",
    ),
    "unknown key": (["+rsim.max_turn=3"], "rsim.max_turn", "unknown key"),
    "stage without training": (
        ["rsim.train=[reasoner]"],
        "rsim.schedule[0]",
        "nothing is trained in this stage (frozen: planner)",
    ),
    "planner missing": (["planner.model.path=/nowhere"], "planner.model.path", "no model here"),
    "planner not named": (["planner.model.path=null"], "planner.model.path", "name the planner's model"),
    "reasoner missing": (["actor_rollout_ref.model.path=/nowhere"], "actor_rollout_ref.model.path", "no model here"),
    "labels": (["planner.model.path=HOME/models/no-labels"], "planner.model.path", "no single token for the strategy"),
    "a reasoner without a chat template": (
        ["actor_rollout_ref.model.path=HOME/models/no-template"],
        "actor_rollout_ref.model.path",
        "no chat template; name an instruction-tuned model, or set actor_rollout_ref.model.custom_chat_template",
    ),
    "a planner without a chat template": (
        ["planner.model.path=HOME/models/no-template"],
        "planner.model.path",
        "no chat template; name an instruction-tuned model, or set planner.model.custom_chat_template",
    ),
    "a planner that would think": (
        ["planner.model.path=HOME/models/thinks"],
        "data.apply_chat_template_kwargs",
        "set +data.apply_chat_template_kwargs.enable_thinking=False",
    ),
    "the same planner without thinking": (
        ["planner.model.path=HOME/models/thinks", "+data.apply_chat_template_kwargs.enable_thinking=False"],
        None,
        "",
    ),
    "questions in plain text": (["data.train_files=HOME/text-prompt.parquet"], None, ""),
    "a row that may be left out": (["data.train_files=HOME/rows/nan.jsonl", "rsim.max_bad_rows=1"], None, ""),
    "a row more than may be left out": (
        ["data.train_files=HOME/rows/truth.jsonl", "rsim.max_bad_rows=1"],
        "data.train_files",
        "8 of 8 rows cannot be used",
    ),
    "prompts that are all too long": (
        ["data.max_prompt_length=8"],
        "actor_rollout_ref.rollout.prompt_length",
        "every question of data.train_files is longer in the reasoner's prompt",
    ),
    "prompts that are all filtered": (
        [
            "data.max_prompt_length=8",
            "actor_rollout_ref.rollout.prompt_length=256",
            "data.filter_overlong_prompts=true",
        ],
        "data.max_prompt_length",
        "would drop every question of data.train_files",
    ),
    "a planner's prompts that are all too long": (
        ["planner.rollout.prompt_length=615"],
        "planner.rollout.prompt_length",
        "every question of data.train_files is longer in the planner's prompt",
    ),
    "data that verl does not read": (["data.val_files=HOME/rows.csv"], "data.val_files", "verl reads .parquet, .json"),
    "data that is no parquet": (["data.val_files=HOME/damaged.parquet"], "data", "is no parquet file"),
    "system messages that are refused": (
        [
            "actor_rollout_ref.model.path=HOME/models/no-system",
            "data.val_files=HOME/system-prompt.parquet",
            "rsim.merge_system=false",
        ],
        "actor_rollout_ref.model.path",
        "takes no system message, and the dataset has some; rsim.merge_system=true",
    ),
    "the same merged": (
        ["actor_rollout_ref.model.path=HOME/models/no-system", "data.val_files=HOME/system-prompt.parquet"],
        None,
        "",
    ),
    "critic": (["algorithm.adv_estimator=gae"], "algorithm.adv_estimator", "choose an estimator that needs none"),
    "an estimator without what it needs": (
        ["algorithm.adv_estimator=optimal_token_baseline"],
        "algorithm.adv_estimator",
        "no sums of squared probabilities",
    ),
    "the planner's, too": (["rsim.planner_adv_estimator=gdpo"], "rsim.planner_adv_estimator", "no rewards by name"),
    "ranks that cannot share a mini-batch": (
        ["trainer.n_gpus_per_node=3", "data.train_batch_size=4"],
        "actor_rollout_ref.actor.ppo_mini_batch_size",
        "it must be a multiple of 3, the data-parallel ranks of this policy",
    ),
    "a row longer than a micro-batch": (
        ["planner.actor.ppo_max_token_len_per_gpu=1400"],
        "planner.actor.ppo_max_token_len_per_gpu",
        "allow rows of 1456 tokens; raise it to 1456",
    ),
    "the same of log-probs alone": (
        ["planner.rollout.log_prob_max_token_len_per_gpu=1000"],
        "planner.rollout.log_prob_max_token_len_per_gpu",
        "allow rows of 1456 tokens; raise it to 1456",
    ),
    "the same of the reference": (
        ["planner.actor.use_kl_loss=true", "planner.ref.log_prob_max_token_len_per_gpu=1000"],
        "planner.ref.log_prob_max_token_len_per_gpu",
        "raise it to 1456",
    ),
    "the same of shared weights": (
        [*SHARED, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1400"],
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
        "allow rows of 1456 tokens",
    ),
    "micro-batches that do not fit": (
        ["planner.actor.use_dynamic_bsz=false", "planner.actor.ppo_micro_batch_size_per_gpu=3"],
        "planner.actor.ppo_micro_batch_size_per_gpu",
        "must divide the 16 rows of a mini-batch on each of 1 data-parallel ranks",
    ),
    "resumed by other GPUs": (
        ["trainer.default_local_dir=HOME/saved-by-two", "trainer.resume_mode=auto"],
        "trainer.n_gpus_per_node",
        "the planner was saved by 2 GPUs",
    ),
    "no such file": (["data.train_files=/nowhere.parquet"], "data.train_files", "no such file"),
    "empty dataset": (["data.train_files=HOME/empty.parquet"], "data.train_files", "the dataset has no rows"),
    "no ground truth": (["data.val_files=HOME/no-truth.parquet"], "data.val_files", "2 of 4 rows cannot be used"),
    "batch": (["data.train_batch_size=64"], "data.train_batch_size", "has only 32 rows"),
    "menu": (["planner.rollout.prompt_length=100"], "planner.rollout.prompt_length", "menu alone takes"),
    "context": (
        ["actor_rollout_ref.rollout.response_length=4000"],
        "actor_rollout_ref.rollout.response_length",
        "the model takes 2048",
    ),
    "no room for an instruction": (
        ["data.max_response_length=8"],
        "actor_rollout_ref.rollout.response_length",
        "the longest instruction alone takes",
    ),
    "group size": (["planner.rollout.n=2"], "planner.rollout.n", "must equal actor_rollout_ref.rollout.n"),
    "agent loop": (
        ["actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agent"],
        "actor_rollout_ref.rollout.agent.default_agent_loop",
        "must be rsim",
    ),
    "tensor parallelism": (
        ["planner.rollout.tensor_model_parallel_size=2"],
        "planner.rollout.tensor_model_parallel_size",
        "a server needs 2 GPUs",
    ),
    "own reward function": (
        ["reward.custom_reward_function.path=mine.py"],
        "reward.reward_manager.name",
        "would ignore reward.custom_reward_function",
    ),
    "critic switched on": (["critic.enable=true"], "algorithm.adv_estimator", "choose an estimator that needs none"),
    "planner's critic": (
        ["rsim.planner_adv_estimator=gae"],
        "rsim.planner_adv_estimator",
        "an estimator that needs none",
    ),
    "no estimator": (["rsim.planner_adv_estimator=grop"], "rsim.planner_adv_estimator", "choose one of"),
    "remax": (["algorithm.adv_estimator=remax"], "algorithm.adv_estimator", "no baselines"),
    "group filter": (["algorithm.filter_groups.enable=true"], "algorithm.filter_groups.metric", "of both roles"),
    "shared weights": (SHARED, None, ""),
    "shared weights, free decoding": ([*SHARED, "rsim.planner_decoding=free"], None, ""),
    "shared weights of two models": (["rsim.shared_weights=true"], "planner.model.path", "has one model"),
    "shared weights, one frozen": ([*SHARED, "rsim.train=[reasoner]"], "rsim.train", "one model in both roles"),
    "shared weights on two pools": (
        [*SHARED, "rsim.planner_pool.enable=true"],
        "rsim.planner_pool.enable",
        "has one model",
    ),
    "shared weights, two temperatures": (
        [*SHARED, "planner.rollout.temperature=0.5"],
        "planner.rollout.temperature",
        "must equal actor_rollout_ref.rollout.temperature=1.0",
    ),
    "shared weights, fused kernels": (
        [*SHARED, "actor_rollout_ref.model.use_fused_kernels=true"],
        "actor_rollout_ref.model.use_fused_kernels",
        "must be False with constrained decoding",
    ),
    "shared weights, the planner's context": (
        [*SHARED, "planner.rollout.response_length=4000", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=5200"],
        "planner.rollout.response_length",
        "the model takes 2048",
    ),
    "top_p": (["planner.rollout.top_p=0.9"], "planner.rollout.top_p", "must be 1"),
    "reference": (
        [
            "planner.actor.use_kl_loss=true",
            "planner.actor.use_dynamic_bsz=false",
            "planner.actor.ppo_micro_batch_size_per_gpu=4",
            "planner.rollout.log_prob_micro_batch_size_per_gpu=4",
        ],
        "planner.ref.log_prob_micro_batch_size_per_gpu",
        "set it",
    ),
    "reference's micro-batches": (
        [
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=false",
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=7",
        ],
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu",
        "must divide the ",
    ),
    "reference's micro-batches with lora": (
        [
            "actor_rollout_ref.model.lora_rank=4",
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=false",
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=7",
        ],
        None,
        "",
    ),
    "strategy": (["planner.actor.strategy=fsdp"], "planner.actor.strategy", "on a CPU only fsdp2"),
    "rollout engine": (["planner.rollout.name=sglang"], "planner.rollout.name", "has no allowed_token_ids"),
    "lora": (
        ["planner.model.lora_rank=8", "actor_rollout_ref.model.lora_rank=4", "planner.actor.use_kl_loss=true"],
        None,
        "",
    ),
    "Megatron's lora": (["planner.model.lora.rank=8"], "planner.model.lora.rank", "set planner.model.lora_rank"),
    "lora of the head": (
        ["planner.model.lora_rank=8", "planner.model.target_modules=[q_proj,lm_head]"],
        "planner.model.target_modules",
        "adapts lm_head",
    ),
    "lora of everything": (
        ["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.target_modules='.*'"],
        "actor_rollout_ref.model.target_modules",
        "adapts model.embed_tokens",
    ),
    "lora of nothing": (
        ["planner.model.lora_rank=8", "planner.model.target_modules=[c_attn]"],
        "planner.model.target_modules",
        "not found in the base model",
    ),
    "lora too large to serve": (["planner.model.lora_rank=600"], "planner.model.lora_rank", "lora.merge=true"),
    "lora merged": (["planner.model.lora_rank=600", "planner.model.lora.merge=true"], None, ""),
    "lora layer by layer": (
        ["planner.model.lora_rank=8", "planner.rollout.layered_summon=true"],
        "planner.rollout.layered_summon",
        "load_format=safetensors",
    ),
    "no adapter": (
        ["planner.model.lora_rank=8", "planner.model.lora_adapter_path=/nowhere"],
        "planner.model.lora_adapter_path",
        "no adapter here",
    ),
    "adapter of another rank": (
        ["planner.model.lora_adapter_path=HOME/adapter"],
        "planner.model.lora_rank",
        "has rank 4; set the same",
    ),
    "adapter of another kind": (
        ["planner.model.lora_rank=4", "planner.model.lora_adapter_path=HOME/adapter"],
        "planner.model.lora_adapter_path",
        "has use_rslora, which verl does not save",
    ),
    "adapter of a frozen role": (
        ["rsim.train=[planner]", "actor_rollout_ref.model.lora_adapter_path=HOME/adapter"],
        "actor_rollout_ref.model.lora_adapter_path",
        "serves its model alone",
    ),
    "mini-batch": (
        ["planner.actor.ppo_mini_batch_size=64"],
        "planner.actor.ppo_mini_batch_size",
        "must not be larger than data.train_batch_size=4",
    ),
}
CASES |= {
    f"rows: {name}": ([f"data.train_files=HOME/rows/{name}.jsonl"], "data.train_files", message)
    for name, (_, message) in REFUSED.items()
}
CASES |= {f"rows: {name}": ([f"data.train_files=HOME/rows/{name}.jsonl"], None, "") for name in CONVERTED}
