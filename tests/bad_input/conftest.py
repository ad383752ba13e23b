"""What the tests of bad input share: they do something bad and compare the words that the user reads."""

import logging
import re

import pytest

from mriflow.base.errors import UserError
from mriflow.images.nifti import BadScan
from test_ukbfetch import APPLICATION, PASSWORD


@pytest.fixture
def shown(tmp_path, caplog):
    """A function that does an act in the test's folder and returns the text that the user reads of it.

    Paths below the folder read {tmp} in the text, addresses of a local web server {server}. No secret of a UK Biobank
    application may stand in the text or in the log, whatever the act.
    """
    caplog.set_level(logging.INFO)

    def text_of(act):
        try:
            text = act(tmp_path)
        except (UserError, BadScan) as error:
            text = str(error)
        text = re.sub(r"http://127\.0\.0\.1:\d+", "{server}", text.replace(str(tmp_path), "{tmp}"))
        for secret in (APPLICATION, PASSWORD, PASSWORD[:9]):
            assert secret not in text + caplog.text
        return text

    return text_of
