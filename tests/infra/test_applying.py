"""The tests' own ground: what is declared is made, and what is misspelt is found."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws
import pytest

from infra.keys import customer_key
from tests.infra.applying import apply
from tests.infra.cloud import ACCOUNT, Cloud
from tests.infra.strict import UnknownInput, check


def test_what_is_declared_is_there_and_its_options_are_known(cloud: Cloud) -> None:
    def program() -> None:
        account = aws.get_caller_identity().account_id
        opts = pulumi.ResourceOptions(protect=True)
        key = customer_key("archive", alias="alias/x", purpose="test", account=account, opts=opts)
        pulumi.export("key", pulumi.Output.secret(key.arn))

    stack = apply(cloud, program, {})
    declared = stack["aws:kms/key:Key", "archive"]
    assert declared.protect
    assert stack.needs(stack["aws:kms/alias:Alias", "archive"], declared)
    kms = cloud.client("kms")
    assert kms.describe_key(KeyId="alias/x")["KeyMetadata"]["Arn"] == declared.outputs["arn"]
    assert ACCOUNT in declared.inputs["policy"]
    assert stack.exported["key"] == declared.outputs["arn"]


def test_a_kind_that_is_not_in_the_table_is_refused(cloud: Cloud) -> None:
    with pytest.raises(NotImplementedError, match="aws:acm/certificate"):
        apply(cloud, lambda: aws.acm.Certificate("x", domain_name="example.com") and None, {})


@pytest.mark.parametrize(
    ("inputs", "place"),
    [
        ({"bucket": "b", "rules": [{"id": "x", "status": "Enabled", "filtre": {}}]}, "rules has no input filtre"),
        ({"bucket": "b", "rules": [{"id": "x", "transitions": [{"storage_clas": "GLACIER"}]}]}, "storage_clas"),
        ({"bucket": 1}, "bucket is int"),
        ({"buckett": "b"}, "buckett"),
    ],
)
def test_an_input_that_the_provider_does_not_know_is_found(inputs: dict[str, object], place: str) -> None:
    with pytest.raises(UnknownInput, match=place):
        check("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration", inputs)
