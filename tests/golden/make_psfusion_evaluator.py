"""Make ``psfusion_evaluator.json`` with the published functions themselves, run by GNU Octave and its package image.

    python tests/golden/make_psfusion_evaluator.py "Image-Fusion/General Evaluation Metric/Evaluation"

The folder is that of a copy of github.com/Linfeng-Tang/Image-Fusion. About ten minutes. SSIM is MATLAB's own function,
not theirs, and Octave has none: it is worked out here from its documentation.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

HERE = Path(__file__).parent
MADE_BY = (
    "tests/golden/make_psfusion_evaluator.py: GNU Octave {version} and the functions of Linfeng-Tang/Image-Fusion, "
    "General Evaluation Metric, called with the arrays of metrics_images.npz (EN, MI, VIF, SD: uint8, whose arithmetic "
    "saturates; SF of pictures in [0, 1]; the others of double); SSIM as MATLAB documents it, of range 1"
)
# the calls, and the order of their arguments, are those of analysis_Reference.m
SCRIPT = """
pkg load image
warning('off', 'all');
addpath(argv(){1});
function y = dct2(x)  % which Octave lacks
  y = cosines(rows(x)) * x * cosines(columns(x))';
end
function c = cosines(n)
  c = sqrt(2 / n) * cos(pi / n * (0:n - 1)' * ((0:n - 1) + 0.5));
  c(1, :) /= sqrt(2);
end
for i = 0:2
  f = imread(sprintf('%s/fused%d.png', argv(){2}, i));
  a = imread(sprintf('%s/ir%d.png', argv(){2}, i));
  b = imread(sprintf('%s/vi%d.png', argv(){2}, i));
  [F, A, B] = deal(double(f), double(a), double(b));
  s.EN = entropy(f);
  s.MI = MI_evaluation(a, b, f, 256);
  s.PSNR = PSNR_evaluation(A, B, F);
  s.MSE = MSE_evaluation(A, B, F);  % which divides by 255 itself
  s.SF = SF_evaluation(F / 255);
  s.SD = SD_evaluation(f);
  s.SDplain = SD_evaluation(F);
  s.AG = AG_evaluation(F);
  s.CC = CC_evaluation(A, B, F);
  s.SCD = analysis_SCD(A, B, F);
  s.Qabf = analysis_Qabf(A, B, F);
  s.VIFplain = vifp_mscale(A, F) + vifp_mscale(B, F);
  s.VIF = vifp_mscale(a, f) + vifp_mscale(b, f);
  s.Nabf = analysis_nabf(A, B, F);
  s.MS_SSIM = analysis_ms_ssim(cat(3, A, B), F);
  s.FMI = analysis_fmi(A / 256, B / 256, F / 256);  % edges, which Octave sees in [0, 1] alone
  s.FMI_dct = analysis_fmi(A, B, F, 'dct');
  for [value, name] = s
    printf('%d %s %.17g\\n', i, name, value);
  end
end
printf('version %s\\n', version());
"""


def similarity(x: np.ndarray, y: np.ndarray) -> float:
    """MATLAB's ssim of two arrays of double: range 1, Gaussian of 1.5 within 11 pixels, repeated edges."""

    def blur(z: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(z, 1.5, radius=5, mode="nearest")

    c1, c2 = 0.01**2, 0.03**2
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    return float((((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def main(functions: str) -> None:
    with np.load(HERE / "metrics_images.npz") as arrays, tempfile.TemporaryDirectory() as folder:
        pictures = {name: arrays[name] for name in arrays}
        for name, picture in pictures.items():
            Image.fromarray(picture).save(Path(folder) / f"{name}.png")
        script = Path(folder) / "values.m"
        script.write_text(SCRIPT)
        said = subprocess.run(
            ["octave-cli", script, functions, folder], check=True, capture_output=True, text=True
        ).stdout
    lines = [line.split() for line in said.splitlines()]
    values: list[dict[str, float]] = [{}, {}, {}]
    for index, name, value in (line for line in lines if len(line) == 3):
        values[int(index)][name] = float(value)
    for index, row in enumerate(values):
        fused, *sources = (pictures[f"{name}{index}"].astype(float) for name in ("fused", "ir", "vi"))
        row["SSIM"] = sum(similarity(fused, source) for source in sources) / 2
    made_by = MADE_BY.format(version=lines[-1][-1])
    (HERE / "psfusion_evaluator.json").write_text(json.dumps({"made by": made_by, "values": values}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
