"""Model families, and the packages on PyPI that contain their chat templates, which are not part of this project."""

from __future__ import annotations

from dataclasses import dataclass

LLAMA_CPP, TRL, AXOLOTL, XINFERENCE, UNSLOTH = (
    "llama-cpp-python==0.3.36",
    "trl==1.16.0",
    "axolotl==0.19.0",
    "xinference==1.17.1",
    "unsloth==2026.10.9",
)


@dataclass(frozen=True, slots=True)
class Family:
    """A model family.

    Attributes:
        name: What the table says.
        package: The pinned package that contains the template.
        template: Name of the template in the package, see `sources.py`.
        eos: The tokenizer's eos token.
        bos: Its bos token; empty if it has none.
        specials: Its other special tokens that the template writes, apart by spaces.
        pieces: `bytes` for a byte-level tokenizer, `words` for one like SentencePiece's, with a mark for each space.
    """

    name: str
    package: str
    template: str
    eos: str
    bos: str = ""
    specials: str = ""
    pieces: str = "bytes"


_IM = "<|im_start|> <|im_end|> <|endoftext|>"
_LLAMA3 = "<|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|>"
_DEEPSEEK = "<｜User｜> <｜Assistant｜>"
_DS_BOS, _DS_EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
_INST = "[INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS]"
_GLM = "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|> <|endoftext|>"
_COHERE = (
    "<|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|> "
    "<|START_RESPONSE|> <|END_RESPONSE|> <|START_THINKING|> <|END_THINKING|>"
)
_PHI = "<|system|> <|user|> <|assistant|> <|end|>"

FAMILIES = (
    Family("Qwen2.5", LLAMA_CPP, "Qwen-Qwen2.5-7B-Instruct", "<|im_end|>", specials=_IM),
    Family("Qwen3", LLAMA_CPP, "Qwen-Qwen3-0.6B", "<|im_end|>", specials=_IM),
    Family("Qwen3-Instruct-2507", TRL, "qwen3_instruct_2507", "<|im_end|>", specials=_IM),
    Family("Qwen3-Thinking-2507", XINFERENCE, "Qwen3-Thinking", "<|im_end|>", specials=_IM),
    Family("Qwen3.5", LLAMA_CPP, "Qwen3.5-4B", "<|im_end|>", specials=_IM),
    Family("QwQ", XINFERENCE, "QwQ-32B", "<|im_end|>", specials=_IM),
    Family("DeepSeek-V2.5", XINFERENCE, "deepseek-v2.5", _DS_EOS, _DS_BOS, _DEEPSEEK),
    Family("DeepSeek-V3", XINFERENCE, "deepseek-v3-0324", _DS_EOS, _DS_BOS, _DEEPSEEK),
    Family("DeepSeek-V3.1", LLAMA_CPP, "deepseek-ai-DeepSeek-V3.1", _DS_EOS, _DS_BOS, _DEEPSEEK),
    Family("DeepSeek-R1", XINFERENCE, "deepseek-r1", _DS_EOS, _DS_BOS, _DEEPSEEK),
    Family("DeepSeek-R1-Distill", TRL, "deepseek_r1_distill", _DS_EOS, _DS_BOS, _DEEPSEEK),
    Family(
        "gpt-oss", LLAMA_CPP, "openai-gpt-oss-120b", "<|return|>",
        specials="<|start|> <|end|> <|message|> <|channel|> <|call|> <|constrain|>",
    ),
    Family("GLM-4", XINFERENCE, "glm4-0414", "<|endoftext|>", specials=_GLM),
    Family("GLM-4.5", XINFERENCE, "glm-4.5", "<|endoftext|>", specials=_GLM),
    Family("GLM-4.6", LLAMA_CPP, "GLM-4.6", "<|endoftext|>", specials=_GLM),
    Family("Llama-2", XINFERENCE, "llama-2-chat", "</s>", "<s>", pieces="words"),
    Family("Llama-3", XINFERENCE, "llama-3-instruct", "<|eot_id|>", "<|begin_of_text|>", _LLAMA3),
    Family("Llama-3.1", LLAMA_CPP, "meta-llama-Llama-3.1-8B-Instruct", "<|eot_id|>", "<|begin_of_text|>", _LLAMA3),
    Family("Llama-3.2", LLAMA_CPP, "meta-llama-Llama-3.2-3B-Instruct", "<|eot_id|>", "<|begin_of_text|>", _LLAMA3),
    Family("Llama-3.3", LLAMA_CPP, "meta-llama-Llama-3.3-70B-Instruct", "<|eot_id|>", "<|begin_of_text|>", _LLAMA3),
    Family(
        "Llama-4", AXOLOTL, "llama4", "<|eot|>", "<|begin_of_text|>", "<|header_start|> <|header_end|> <|python_start|>"
    ),
    Family("Vicuna", UNSLOTH, "vicuna_template", "</s>", "<s>", pieces="words"),
    Family("Starling (OpenChat)", UNSLOTH, "starling_template", "<|end_of_turn|>", "<s>", pieces="words"),
    Family("Falcon-H1", AXOLOTL, "falcon_h1", "<|im_end|>", specials=_IM),
    Family("Mistral v1", XINFERENCE, "mistral-instruct-v0.1", "</s>", "<s>", pieces="words"),
    Family("Mistral v3", XINFERENCE, "mistral-instruct-v0.3", "</s>", "<s>", _INST, pieces="words"),
    Family("Mixtral", XINFERENCE, "mixtral-8x22B-instruct-v0.1", "</s>", "<s>", _INST, pieces="words"),
    Family("Mistral-Nemo", LLAMA_CPP, "mistralai-Mistral-Nemo-Instruct-2407", "</s>", "<s>", _INST),
    Family(
        "Mistral-Small-3.2", LLAMA_CPP, "Mistral-Small-3.2-24B-Instruct-2506", "</s>", "<s>",
        _INST + " [SYSTEM_PROMPT] [/SYSTEM_PROMPT]",
    ),
    Family("Gemma 1", TRL, "gemma", "<eos>", "<bos>", "<start_of_turn> <end_of_turn>", pieces="words"),
    Family("Gemma 2", LLAMA_CPP, "google-gemma-2-2b-it", "<eos>", "<bos>", "<start_of_turn> <end_of_turn>", "words"),
    Family("Gemma 3", XINFERENCE, "gemma-3-1b-it", "<eos>", "<bos>", "<start_of_turn> <end_of_turn>", "words"),
    Family(
        "Gemma 4", LLAMA_CPP, "google-gemma-4-31B-it", "<turn|>", "<bos>", "<|turn> <|channel> <channel|> <|think|>",
        "words",
    ),
    Family("Phi-3", TRL, "phi3", "<|endoftext|>", specials=_PHI),
    Family("Phi-3.5", LLAMA_CPP, "microsoft-Phi-3.5-mini-instruct", "<|endoftext|>", specials=_PHI),
    Family("Phi-4", AXOLOTL, "phi_4", "<|im_end|>", specials=_IM + " <|im_sep|>"),
    Family("SmolLM3", LLAMA_CPP, "HuggingFaceTB-SmolLM3-3B", "<|im_end|>", specials=_IM),
    Family("Zephyr", UNSLOTH, "zephyr_template", "</s>", "<s>", pieces="words"),
    Family("Yi-1.5", XINFERENCE, "Yi-1.5-chat", "<|im_end|>", specials=_IM),
    Family("InternLM3", XINFERENCE, "internlm3-instruct", "<|im_end|>", "<s>", "<|im_start|>"),
    Family("Baichuan 2", XINFERENCE, "baichuan-2-chat", "</s>", "<s>", "<reserved_106> <reserved_107>", "words"),
    Family("Command R", AXOLOTL, "cohere", "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", _COHERE),
    Family(
        "Command R7B", LLAMA_CPP, "CohereForAI-c4ai-command-r7b-12-2024-tool_use", "<|END_OF_TURN_TOKEN|>",
        "<BOS_TOKEN>", _COHERE,
    ),
    Family(
        "Granite 3.3", LLAMA_CPP, "ibm-granite-granite-3.3-2B-Instruct", "<|end_of_text|>",
        specials="<|start_of_role|> <|end_of_role|>",
    ),
    Family(
        "Granite 4", LLAMA_CPP, "ibm-granite-granite-4.0", "<|end_of_text|>",
        specials="<|start_of_role|> <|end_of_role|>",
    ),
    Family("OpenHermes 2.5", XINFERENCE, "openhermes-2.5", "<|im_end|>", "<s>", "<|im_start|>"),
    Family(
        "Kimi-K2", LLAMA_CPP, "moonshotai-Kimi-K2", "<|im_end|>",
        specials="<|im_system|> <|im_user|> <|im_assistant|> <|im_middle|>",
    ),
    Family(
        "Kimi-K2-Thinking", LLAMA_CPP, "Kimi-K2-Thinking", "<|im_end|>",
        specials="<|im_system|> <|im_user|> <|im_assistant|> <|im_middle|>",
    ),
    Family("MiniMax-M2", LLAMA_CPP, "MiniMax-M2", "[e~[", "]~!b[", "]~b]"),
    Family("ERNIE 4.5", XINFERENCE, "Ernie4.5", "</s>", "<s>", "<|begin_of_sentence|> <|end_of_sentence|>"),
    Family(
        "Hunyuan 3", LLAMA_CPP, "tencent-Hy3", "<｜hy_eos:opensource｜>", "<｜hy_begin_of_sentence:opensource｜>",
        "<｜hy_User:opensource｜> <｜hy_Assistant:opensource｜> <｜reasoning_mode:opensource｜>",
    ),
    Family(
        "Nemotron Nano 2", LLAMA_CPP, "NVIDIA-Nemotron-Nano-v2", "<SPECIAL_12>", specials="<SPECIAL_10> <SPECIAL_11>"
    ),
    Family("Nemotron 3 Nano", LLAMA_CPP, "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "<|im_end|>", specials=_IM),
    Family("EXAONE 4", AXOLOTL, "exaone4", "[|endofturn|]", specials="[|system|] [|user|] [|assistant|] [|tool|]"),
    Family("Seed-OSS", LLAMA_CPP, "ByteDance-Seed-OSS", "<seed:eos>", "<seed:bos>"),
    Family("LFM2", LLAMA_CPP, "LFM2-8B-A1B", "<|im_end|>", "<|startoftext|>", "<|im_start|>"),
    Family("Qwen2.5, marked", TRL, "qwen2_5_training", "<|im_end|>", specials=_IM),
    Family("Qwen3, marked", TRL, "qwen3_training", "<|im_end|>", specials=_IM),
    Family("Llama-3, marked", TRL, "llama3_training", "<|eot_id|>", "<|begin_of_text|>", _LLAMA3),
    Family("Gemma 3, marked", TRL, "gemma3_training", "<eos>", "<bos>", "<start_of_turn> <end_of_turn>", "words"),
    Family("Phi-3, marked", TRL, "phi3_training", "<|endoftext|>", specials=_PHI),
    Family("GLM-4.5, marked", TRL, "glm4moe_training", "<|endoftext|>", specials=_GLM),
    Family(
        "gpt-oss, marked", TRL, "gptoss_training", "<|return|>",
        specials="<|start|> <|end|> <|message|> <|channel|> <|call|> <|constrain|>",
    ),
    Family("DeepSeek-V3, marked", TRL, "deepseekv3_training", _DS_EOS, _DS_BOS, _DEEPSEEK),
    Family("Command R, marked", TRL, "cohere_training", "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", _COHERE),
)  # fmt: skip
