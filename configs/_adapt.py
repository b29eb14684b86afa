"""How much of a model a job trains, and of whom: the same in every job that trains one."""

from ml_collections import ConfigDict


def adapt() -> ConfigDict:
    """Returns the settings of `llmjax.adapt.config.AdaptConfig`."""
    c = ConfigDict()
    # full, nonzeros (all but the zeros of pruned weights), lora, adalora, adapters, biases or last-layer; all but full
    # need model.init.
    c.method = "full"
    c.targets = ()  # weights of lora and adalora: endings as c_attn, or patterns as h_[01]/*; empty = every product
    c.rank = 8  # of lora; of adalora the mean of all weights in the end
    c.initial_rank = 12  # of each of adalora's weights at first
    c.alpha = 16.0  # what lora adds is multiplied by alpha / rank, what adalora adds by alpha / initial_rank
    c.dropout = 0.0  # of the inputs of what is added
    c.rank_stabilised = False  # lora: alpha / sqrt(rank) instead
    c.orthogonality = 0.1  # weight of adalora's penalty on matrices that are not orthogonal
    c.width = 32  # of the bottlenecks of adapters
    return c


def teacher() -> ConfigDict:
    """Returns the settings of `llmjax.train.lesson.Lesson`."""
    c = ConfigDict()
    c.folder = ""  # of a trained model of the same tokenizer, whose answers are learnt beside the labels; empty = none
    c.share = 0.5  # of its answers in the loss
    c.temperature = 2.0  # by which its logits, and the student's, are divided
    c.hidden = 0.0  # weight of the difference of last hidden states; both models must be of one width
    return c
