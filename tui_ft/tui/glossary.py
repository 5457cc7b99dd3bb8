"""The words of the field in a sentence or two each, with the setting that they belong to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """One word."""

    name: str
    about: str
    """What it is and what it trades."""
    keys: tuple[str, ...] = ()
    """Settings of the recipe that decide it."""

    def matches(self, needle: str) -> bool:
        return needle.lower() in f"{self.name} {self.about} {' '.join(self.keys)}".lower()


TERMS = (
    Term("activation", "What each layer leaves during the forward pass because the backward pass needs it. It grows with batch and length, and often takes most of the memory."),
    Term(
        "activation checkpointing",
        "Activations are thrown away and computed again in the backward pass: far less memory for about a third more time. Also called gradient checkpointing.",
        ("train.activation_checkpointing",),
    ),
    Term("adapter", "Small trained matrices beside frozen weights. A file of some megabytes that needs its base model, or is merged into it."),
    Term("AdamW", "The usual optimizer. It keeps two numbers for every trained weight, eight bytes in fp32; its 8-bit form keeps two.", ("train.optimizer",)),
    Term("attention", "How a token looks at those before it. `sdpa` is torch's fused kernel, `varlen` the one for packed rows, `eager` the plain one that every model has."),
    Term("alpha", "The strength of a LoRA adapter: its product is scaled by alpha / r. Usually once or twice the rank.", ("method.alpha",)),
    Term("base model", "The model before this training; also one that only continues text and was never taught to chat."),
    Term("batch, effective", "Samples that one optimizer step learns from. Larger is steadier and needs fewer, larger steps.", ("train.effective_batch",)),
    Term("batch, micro", "Samples in one forward pass on one GPU. It decides memory and speed, and changes nothing that is learned.", ("train.micro_batch",)),
    Term("bf16", "16-bit numbers with the range of 32-bit ones: the usual precision on GPUs since Ampere.", ("train.precision",)),
    Term("chat template", "How a conversation becomes one text, with markers for who speaks. A model answers well only under the one it was trained with.", ("prompt.template",)),
    Term("ChatML", "A chat template with <|im_start|> and <|im_end|>, used by Qwen and many others.", ("prompt.template",)),
    Term("checkpoint", "All that is needed to go on exactly from a step: weights, optimizer, place in the data, random numbers.", ("checkpoints.every", "checkpoints.keep")),
    Term("completion mask", "Which tokens are learned: usually the answers alone, not the questions. The preview shows it token by token.", ("prompt.learn",)),
    Term("context", "The most tokens a model can look at. A longer maximum than that cannot be trained.", ("prompt.max_length",)),
    Term("cosine schedule", "The learning rate falls along half a cosine from its peak to zero; linear falls straight.", ("train.schedule",)),
    Term("divergence", "The loss rises or is no number any more, most often from too high a learning rate. The run is paused before a bad checkpoint is written."),
    Term("DoRA", "LoRA with a trained magnitude beside it: a little better at small ranks, and slower.", ("method.variant",)),
    Term("double quantization", "The scales of 4-bit weights are quantized as well: saves another 0.4 bits a weight.", ("method.double_quantization",)),
    Term("dropout", "Parts of the adapter are switched off at random while training, against learning by heart. 0 is faster.", ("method.dropout",)),
    Term("early stopping", "Ends the run when the validation loss has not improved for so many evaluations.", ("evaluate.early_stopping",)),
    Term("EOS", "The token that ends an answer. A model that never learns it never stops talking; the preview refuses such data."),
    Term("epoch", "One pass over all samples. One to three is usual; more is learning by heart.", ("train.epochs",)),
    Term("fp16", "16-bit numbers of small range, for GPUs before Ampere; gradients are scaled so that they do not vanish.", ("train.precision",)),
    Term("full fine-tuning", "Every weight is trained: the most can change, and it takes about 16 bytes for each of them.", ("method.kind",)),
    Term("GGUF", "The file format of llama.cpp. Such a file can be trained on: it is unpacked first."),
    Term("gradient accumulation", "Several micro-batches are added up before one optimizer step: a large effective batch in little memory.", ("train.micro_batch",)),
    Term("gradient norm", "How large the gradients of a step are. Above the limit they are scaled down; sudden peaks announce trouble.", ("train.max_grad_norm",)),
    Term("learning rate", "How far a step moves the weights. The setting to change first: about 2e-4 for LoRA, 1e-5 to 5e-5 for full fine-tuning.", ("train.learning_rate",)),
    Term("like lengths", "Samples of like length share a batch, so that little padding is computed; the order stays random.", ("train.length_grouped",)),
    Term("LoRA", "Two small matrices of rank r are trained beside each chosen weight, which stays frozen: little memory, nearly as good as training all.", ("method.kind", "method.r")),
    Term("loss", "How surprised the model is by the right next token, on average over what is learned: 0 is certain, each 0.69 less is twice as sure."),
    Term("merge", "The adapter is added into the base weights: a model of its own, as large as the base.", ("output.merge",)),
    Term("NF4", "Weights in 4 bits whose values are spaced like a normal distribution. A quarter of the memory of bf16, a little slower and less exact.", ("method.quantization",)),
    Term("packing", "Short samples share one row, each seeing itself alone: nothing is wasted on padding.", ("train.packing",)),
    Term("padding", "Filler that makes the samples of a batch equally long. It is computed and thrown away."),
    Term("perplexity", "The exponential of the loss: between how many tokens the model hesitates."),
    Term("QLoRA", "LoRA beside weights that are frozen in 4 bits: a model of 7 billion parameters on a card of 8 to 10 GB.", ("method.quantization",)),
    Term("rank r", "The width of LoRA's matrices: 8 to 64. Higher can learn more and costs little memory.", ("method.r",)),
    Term("rsLoRA", "LoRA scaled by alpha / √r, which keeps high ranks learning.", ("method.variant",)),
    Term("seed", "The number from which all that is random follows: order, initial adapters, dropout. The same seed gives the same run.", ("train.seed",)),
    Term("step", "One change of the weights, after one effective batch. Everything is counted in steps.", ("train.max_steps",)),
    Term("target modules", "The layers that get an adapter; all-linear takes every one but the head.", ("method.targets",)),
    Term("token", "A piece of text, about four letters of English. Speed counts real tokens, never padding."),
    Term("validation loss", "The loss on samples that are not trained on. When it rises while the training loss falls, the model learns by heart.", ("data.validation", "evaluate.every")),
    Term("warm-up", "The first steps, in which the learning rate rises to its peak. It keeps the beginning calm.", ("train.warmup",)),
    Term("weight decay", "Pulls weights a little towards zero at each step; 0 is usual for adapters.", ("train.weight_decay",)),
)  # fmt: skip
