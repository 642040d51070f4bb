def test_x(fieldmark, finished_job):
    for args in ([], ["--method","abs"], ["--json"], ["--method","crops_mean"], ["--html", "/tmp/dev/i6/page.html", "--method", "abs"]):
        said = fieldmark("explain", finished_job, "wren/0.png", *args)
        print(said.status, said.err, said.out[:3000])
    for args in (["0.png"], ["wren/9.png"], ["wren/broken.png"], ["train/wren/0.png"], ["/bin/ls"], [finished_job.parent/"photos/test/wren/1.png", "--method", "clip"], ["wren/1.png", "--class", "wrn"], ["wren/1.png", "--seed", 3]):
        said = fieldmark("explain", finished_job, *args)
        print(said.status, said.err, said.out[:300])
    assert 0
