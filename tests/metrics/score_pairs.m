% PSNR and SSIM of image pairs by MATLAB's formulas, and NIQE and BRISQUE of single images.
%
%   octave --no-gui --eval "addpath('FOLDER'); score_pairs(LIST, PARAMETERS, OUT)"
%
% LIST: text file, a line "name<TAB>image<TAB>target" for each pair, PNG files.
% PARAMETERS: folder with niqe_mean.csv, niqe_cov.csv (the pristine model), brisque_min.csv, brisque_max.csv,
%   brisque_coef.csv, brisque_sv.csv (the regression) and brisque_gamma_rho.csv.
% OUT: CSV, name,psnr,ssim,niqe,brisque (of the image).
function score_pairs(list, parameters, out)
  pkg load image
  read = @(name) dlmread(fullfile(parameters, name), ',');
  lines = strsplit(strtrim(fileread(list)), "\n");
  file = fopen(out, 'w');
  fprintf(file, "name,psnr,ssim,niqe,brisque\n");
  for i = 1:numel(lines)
    field = strsplit(lines{i}, "\t");
    image = imread(field{2});
    target = imread(field{3});
    x = double(luma(image));
    y = double(luma(target));
    mse = mean((x(:) - y(:)).^2);
    fprintf(file, '%s,%.9f,%.9f,%.9f,%.9f\n', field{1}, 20 * log10(255 / sqrt(mse)), ssim(x, y), niqe(x, read), ...
            brisque(image, read));
  end
  fclose(file);
end

% Y of MATLAB's rgb2ycbcr for uint8, 16 + (65.481 R + 128.553 G + 24.966 B) / 255 rounded. In thousandths, which are
% whole, a half is a half and goes up; Octave's own rgb2ycbcr rounds one pixel in 85,000, on average, the other way.
function y = luma(image)
  rgb = double(image);
  thousandths = 65481 * rgb(:, :, 1) + 128553 * rgb(:, :, 2) + 24966 * rgb(:, :, 3) + 16 * 255000;
  y = round(thousandths / 255000);
end

% Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, IEEE TIP 13(4), 2004
function value = ssim(x, y)
  window = fspecial('gaussian', 11, 1.5);
  c1 = (0.01 * 255)^2;
  c2 = (0.03 * 255)^2;
  average = @(z) filter2(window, z, 'valid');
  mx = average(x);
  my = average(y);
  vx = average(x.^2) - mx.^2;
  vy = average(y.^2) - my.^2;
  vxy = average(x .* y) - mx .* my;
  map = ((2 * mx .* my + c1) .* (2 * vxy + c2)) ./ ((mx.^2 + my.^2 + c1) .* (vx + vy + c2));
  value = mean(map(:));
end

% Mittal, Soundararajan, Bovik: Making a "completely blind" image quality analyzer, IEEE SPL 20(3), 2013
function value = niqe(y, read)
  block = 96;
  rows = floor(size(y, 1) / block);
  columns = floor(size(y, 2) / block);
  y = y(1:rows * block, 1:columns * block);
  features = [];
  for scale = 1:2
    side = block / scale;
    normal = normalised(y, 'replicate');
    found = [];
    for c = 1:columns
      for r = 1:rows
        found(end + 1, :) = block_features(normal((r - 1) * side + (1:side), (c - 1) * side + (1:side)));
      end
    end
    features = [features, found];
    y = halve(y);
  end
  complete = features(~any(isnan(features), 2), :);
  m = mean_without_nan(features) - read('niqe_mean.csv');
  value = sqrt(m * pinv((read('niqe_cov.csv') + cov(complete)) / 2) * m');
end

function m = mean_without_nan(features)
  for k = 1:size(features, 2)
    column = features(:, k);
    m(k) = mean(column(~isnan(column)));
  end
end

function f = block_features(z)
  [a, bl, br] = aggd(z(:));
  f = [a, (bl + br) / 2];
  for shift = [0 1; 1 0; 1 1; 1 -1]'
    product = z .* circshift(z, shift');
    [a, bl, br] = aggd(product(:));
    f = [f, a, (br - bl) * gamma(2 / a) / gamma(1 / a), bl, br];
  end
end

% shape and scales of an asymmetric generalised Gaussian distribution, by moment matching
function [a, bl, br] = aggd(z)
  [a, left, right] = aggd_spread(z);
  ratio = sqrt(gamma(1 / a) / gamma(3 / a));
  bl = left * ratio;
  br = right * ratio;
end

function [a, left, right] = aggd_spread(z)
  shapes = 0.2:0.001:10;
  r = gamma(2 ./ shapes).^2 ./ (gamma(1 ./ shapes) .* gamma(3 ./ shapes));
  left = sqrt(mean(z(z < 0).^2));
  right = sqrt(mean(z(z > 0).^2));
  g = left / right;
  rhat = mean(abs(z))^2 / mean(z.^2);
  [~, place] = min((r - rhat * (g^3 + 1) * (g + 1) / (g^2 + 1)^2).^2);
  a = shapes(place);
end

function z = normalised(image, border)
  window = fspecial('gaussian', 7, 7 / 6);
  if strcmp(border, 'replicate')
    average = @(x) imfilter(x, window, 'replicate');
  else
    average = @(x) filter2(window, x, 'same');  % zeros outside
  end
  m = average(image);
  z = (image - m) ./ (sqrt(abs(average(image.^2) - m.^2)) + 1);
end

% imresize(image, 0.5): bicubic (a = -0.5), stretched by 2 against aliasing, mirrored at the border
function small = halve(image)
  small = halve_rows(halve_rows(image)')';
end

function small = halve_rows(image)
  n = size(image, 1);
  m = ceil(n / 2);
  small = zeros(m, size(image, 2));
  for i = 1:m
    centre = 2 * i - 0.5;
    taps = floor(centre - 4) + (1:9);
    t = abs(centre - taps) / 2;
    w = (1.5 * t.^3 - 2.5 * t.^2 + 1) .* (t <= 1) + (-0.5 * t.^3 + 2.5 * t.^2 - 4 * t + 2) .* (t > 1 & t <= 2);
    places = taps;
    places(taps < 1) = 1 - taps(taps < 1);
    places(taps > n) = 2 * n + 1 - taps(taps > n);
    small(i, :) = (w / sum(w)) * image(places, :);
  end
end

% Mittal, Moorthy, Bovik: No-reference image quality assessment in the spatial domain, IEEE TIP 21(12), 2012
function value = brisque(image, read)
  grey = double(rgb2gray(image));
  f = [];
  for scale = 1:2
    z = normalised(grey, 'zero');
    [a, spread] = ggd(z(:));
    f = [f, a, spread];
    for shift = [0 1; 1 0; 1 1; -1 1]'
      product = z .* circshift(z, shift');
      [a, left, right] = aggd_spread(product(:));
      ratio = sqrt(gamma(1 / a)) / sqrt(gamma(3 / a));
      f = [f, a, (right - left) * (gamma(2 / a) / gamma(1 / a)) * ratio, left^2, right^2];
    end
    grey = halve(grey);
  end
  low = read('brisque_min.csv');
  high = read('brisque_max.csv');
  f = -1 + 2 * (f - low) ./ (high - low);
  svs = read('brisque_sv.csv');
  gamma_rho = read('brisque_gamma_rho.csv');
  value = exp(-gamma_rho(1) * sum((svs - f).^2, 2))' * read('brisque_coef.csv') - gamma_rho(2);
end

% shape and variance of a generalised Gaussian distribution
function [a, variance] = ggd(z)
  shapes = 0.2:0.001:10;
  r = gamma(1 ./ shapes) .* gamma(3 ./ shapes) ./ gamma(2 ./ shapes).^2;
  variance = mean(z.^2);
  [~, place] = min(abs(variance / mean(abs(z))^2 - r));
  a = shapes(place);
end
