"""Trains the small CLIP of the rendered world: `python -m demo.train`.

Renders training pictures, then learns from captioned crops of them with a contrastive loss over the batch's
captions and all phrases for one part. Each of `--workers` processes takes batches of its own with one thread
and their gradients are averaged, which on a few cores is faster than one process with many threads. The
schedule counts steps, never time, so the same command gives the same model.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from demo.batches import Batch, draw_batch, open_pool, render_pool
from demo.captions import PHRASES, every_sentence
from demo.dataset import MODEL_FOLDER
from demo.weights import CONFIG, narrow_tokens, new_model, save_model, tokenize

LEARNING_RATE = 1.2e-3
WARM_UP = 150
WEIGHT_DECAY = 0.05
# The logit scale starts where a network can learn and ends at CLIP's own, for which the published
# temperatures are meant: constant, then growing, then constant, as shares of all steps.
FIRST_SCALE, LAST_SCALE = 16.0, 100.0
GROWS_FROM, GROWS_UNTIL = 0.35, 0.7


@dataclass(frozen=True)
class Job:
    """What the command line asks for; `batch` is the number of crops a process and step."""

    out: Path
    images: int
    steps: int
    seed: int
    workers: int
    batch: int
    pool: Path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.train", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="folder for the model")
    parser.add_argument("--images", type=int, default=6000, help="rendered training pictures")
    parser.add_argument("--steps", type=int, default=5000, help="steps of the optimiser")
    parser.add_argument("--batch", type=int, default=32, help="crops a worker and step")
    parser.add_argument("--workers", type=int, default=2, help="processes; other results with more")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="fieldmark-train-") as folder:
        job = Job(pool=Path(folder), **vars(asked))
        began = time.monotonic()
        report = lambda done: print(f"rendered {done}/{job.images}", flush=True)
        render_pool(job.pool, job.images, job.seed, job.workers, report)
        print(f"rendered in {time.monotonic() - began:.0f} s", flush=True)
        meeting = f"file://{folder}/meeting"
        torch.multiprocessing.spawn(train, (job, meeting), nprocs=job.workers)


def train(rank: int, job: Job, meeting: str) -> None:
    """One worker's training loop; worker 0 writes the model, every few hundred steps and at the end."""
    torch.set_num_threads(1)
    torch.backends.cuda.enable_flash_sdp(False)  # on CPU the plain kernel is faster at 65 tokens
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=job.workers)
    torch.manual_seed(job.seed)
    model = new_model()
    used = tokenize(every_sentence()).unique()
    narrow_tokens(model, used)
    model.logit_scale.requires_grad_(False)
    optimizer = _optimizer(model)
    pool = open_pool(job.pool, job.seed)
    began, loss_now, hits_now = time.monotonic(), None, None
    for step in range(job.steps):
        share = step / job.steps
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (0.01 + 0.99 * _cosine(share))
        model.logit_scale.data.fill_(math.log(logit_scale(share)))
        batch = draw_batch(pool, job.batch, f"{job.seed} {rank} {step}")
        logits = _logits(model, used, batch)
        fits, unsure = torch.from_numpy(batch.fits), torch.from_numpy(batch.unsure)
        loss = contrastive_loss(logits, fits, unsure)
        optimizer.zero_grad()
        loss.backward()
        _average_gradients(model, job.workers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        hits = fits.gather(1, logits.masked_fill(unsure, -1e4).argmax(1, keepdim=True)).float().mean().item()
        loss_now = loss.item() if loss_now is None else 0.98 * loss_now + 0.02 * loss.item()
        hits_now = hits if hits_now is None else 0.98 * hits_now + 0.02 * hits
        if rank == 0 and (step + 1) % 50 == 0:
            seconds = time.monotonic() - began
            print(
                f"step {step + 1}/{job.steps}  {seconds:.0f} s  loss {loss_now:.3f}  "
                f"best sentence fits {hits_now:.3f}  scale {logit_scale(share):.0f}",
                flush=True,
            )
        if rank == 0 and ((step + 1) % 250 == 0 or step + 1 == job.steps):
            save_model(model, used, job.out)
    dist.destroy_process_group()


def logit_scale(share: float) -> float:
    """The scale of the logits when `share` (0 to 1) of the steps is done."""
    growth = min(1.0, max(0.0, (share - GROWS_FROM) / (GROWS_UNTIL - GROWS_FROM)))
    return FIRST_SCALE * (LAST_SCALE / FIRST_SCALE) ** growth


def contrastive_loss(logits: Tensor, fits: Tensor, unsure: Tensor) -> Tensor:
    """InfoNCE with several right answers, both ways: images `[n]` by sentences `[t]`, all `[n, t]`.

    The mean log probability of an image's fitting sentences among all sentences, and of a sentence's fitting
    images among all images; pairs that are `unsure` take no part.
    """
    logits = logits.masked_fill(unsure, -1e4)
    right = fits.float()
    losses = []
    for axis in (1, 0):
        count = right.sum(axis)
        log_probability = (torch.log_softmax(logits, axis) * right).sum(axis) / count.clamp(min=1)
        losses.append(-log_probability[count > 0].mean())
    return (losses[0] + losses[1]) / 2


def _logits(model: torch.nn.Module, used: Tensor, batch: Batch) -> Tensor:
    mean, std = (torch.tensor(CONFIG["preprocess_cfg"][name]) for name in ("mean", "std"))
    images = (torch.from_numpy(batch.images) - mean) / std
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = model.encode_image(images.permute(0, 3, 1, 2).contiguous())
        said = torch.cat([_encode(model, used, batch.captions), _encode(model, used, list(PHRASES))])
    seen, said = (torch.nn.functional.normalize(features.float(), dim=-1) for features in (seen, said))
    return seen @ said.T * model.logit_scale.exp()


def _encode(model: torch.nn.Module, used: Tensor, sentences: list[str]) -> Tensor:
    """`encode_text` on no more positions than the longest sentence needs: later ones change nothing, since
    attention is causal and the sentence's feature is read at its last token."""
    tokens = tokenize(sentences)
    ends = tokens.argmax(1)
    length = int(ends.max()) + 1
    rows = torch.searchsorted(used, tokens[:, :length].contiguous())
    x = model.token_embedding(rows) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    return model.ln_final(x[torch.arange(len(x)), ends]) @ model.text_projection


def _average_gradients(model: torch.nn.Module, workers: int) -> None:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= workers
    means = flat.split([gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def _optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 and "embedding" not in name else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


if __name__ == "__main__":
    main()
