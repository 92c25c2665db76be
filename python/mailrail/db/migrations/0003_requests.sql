-- What every request needs: kept answers, the count of requests, test keys.
SELECT;
