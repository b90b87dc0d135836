"""The half of fewpair that serves exported models over REST and in the browser; it never imports torch or trainer."""
