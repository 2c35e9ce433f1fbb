[Postfix]
title=Mail server (SMTP)
description=Mail between servers
ports=25/tcp

[Postfix SMTPS]
title=Mail server (SMTPS)
description=Mail of users, TLS from the first octet
ports=465/tcp

[Postfix Submission]
title=Mail server (Submission)
description=Mail of users
ports=587/tcp
